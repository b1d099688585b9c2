"""Training cases that the network sees as like a study."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..network.cases import Case
from ..network.novelty import Novelty
from .result import SimilarCase

COUNT = 5
"""Cases that are told, at most."""


@torch.no_grad()
def similar_cases(
    novelty: Novelty, cases: Sequence[Case], pooled: Tensor, limit: float, count: int = COUNT
) -> list[SimilarCase]:
    """The nearest training cases, the nearest first.

    The distance is that in the space of the novelty: along the principal directions of the training images, together
    with what lies outside of them. Of several slices it is the mean over them.

    Args:
        novelty: With the references of the training images.
        cases: What is told of them, in the same order; empty where nothing is.
        pooled: (sample, C) pooled features of the slices that stand for the study, or of the one image or volume.
        limit: Largest distance that is accepted as known, the threshold of the card's novelty.
        count: Cases, at most.

    Raises:
        ValueError: Not one case for each reference.
    """
    if not cases:
        return []
    if len(cases) != len(novelty.references):
        raise ValueError(f"{len(cases)} cases for {len(novelty.references)} references")
    distances = novelty.distances(pooled).mean(0) / limit
    nearest = distances.argsort(stable=True)[:count].tolist()
    return [_told(cases[index], float(distances[index])) for index in nearest]


def _told(case: Case, distance: float) -> SimilarCase:
    return SimilarCase(
        label=case.label,
        source=case.source,
        distance=distance,
        licence=case.licence,
        view=case.view,
        age_years=case.age_years,
        sex=case.sex,
        image=case.image,
    )
