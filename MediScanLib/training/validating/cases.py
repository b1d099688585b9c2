"""Which studies are looked at: those that readers marked, never one of train."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...study.record import ClinicalRecord
from ..datasets import LABELS, Study
from ..evaluating.localization import wanted_regions
from ..regions import NO_COPY, Region
from .degradations import generator_of
from .request import UNMARKED_CASES, Request

UNDECIDED = ("pneumonia", "covid")
"""Findings of which the likelier is looked at where the manifest does not know the image."""


@dataclass(frozen=True, eq=False)
class Case:
    """One image whose maps are looked at.

    Attributes:
        name: Image as seen from the manifest, unique together with `group`.
        image: Its path.
        record: Clinical values.
        patient: For the bootstrap.
        split: Split of the image, or NO_COPY.
        group: Source of image and marks.
        label: Finding, "" where the manifest does not tell.
        region: What readers marked; None where nobody did.
    """

    name: str
    image: Path
    record: ClinicalRecord
    patient: str
    split: str
    group: str
    label: str
    region: Region | None

    @property
    def key(self) -> tuple[str, str, str]:
        """Names the case in the journal."""
        return (self.name, self.group, self.label)

    def reported(self, split: str) -> bool:
        """Whether it is reported; the others serve to tune a threshold on."""
        return self.split in (split, NO_COPY)


def choose_cases(request: Request, studies: Sequence[Study], regions: Sequence[Region]) -> list[Case]:
    """Cases in the order in which they are done: those to tune the thresholds on first, then those to report.

    Where nothing was marked, studies of the split with a finding are taken, so that methods can still be compared.
    """
    marked = [_marked(request, region) for region in wanted_regions(regions, request.split)]
    tuning = [case for case in marked if not case.reported(request.split)]
    reported = [case for case in marked if case.reported(request.split)]
    most = request.cases
    if not reported:
        found = (s for s in studies if s.split == request.split and s.label in LABELS and s.label != "normal")
        reported = [_unmarked(request, study) for study in found]
        most = most or UNMARKED_CASES
        tuning = []
    return [*tuning, *evenly(reported, most)]


def evenly(items: Sequence[Case], most: int | None) -> list[Case]:
    """At most so many, spread over all."""
    if most is None or len(items) <= most:
        return list(items)
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))]


def stress_studies(request: Request, studies: Sequence[Study]) -> list[Study]:
    """Studies of the split for the stress tests: by source at most `request.stress_studies`, labels in proportion."""
    chosen: list[Study] = []
    own = [study for study in studies if study.split == request.split]
    for source in dict.fromkeys(study.source for study in own):
        inside = [study for study in own if study.source == source]
        most = request.stress_studies
        if not most or len(inside) <= most:
            chosen += inside
            continue
        order = generator_of(request.seed, "stress", source).permutation(len(inside))
        by_label: dict[str, list[Study]] = {}
        for i in order:
            by_label.setdefault(inside[i].label, []).append(inside[i])
        # every label keeps its share, and a rare one keeps one study at least
        chosen += [s for few in by_label.values() for s in few[: max(1, round(most * len(few) / len(inside)))]]
    return sorted(chosen, key=lambda study: study.row)


def _marked(request: Request, region: Region) -> Case:
    return Case(
        name=_seen_from(request.data, region.image),
        image=region.image,
        record=region.record,
        patient=region.patient,
        split=region.split,
        group=region.group,
        label=region.label,
        region=region,
    )


def _unmarked(request: Request, study: Study) -> Case:
    return Case(
        name=_seen_from(request.data, study.image),
        image=study.image,
        record=study.record,
        patient=study.patient,
        split=study.split,
        group=study.source,
        label=study.label,
        region=None,
    )


def _seen_from(manifest: Path, image: Path) -> str:
    try:
        return Path(os.path.relpath(image, manifest.parent)).as_posix()
    except ValueError:  # another drive
        return image.as_posix()
