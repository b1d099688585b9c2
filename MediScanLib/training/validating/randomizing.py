"""Sanity check of every method: destroy what the network learned, and its maps must change.

As `evaluating.randomization`, for each method (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...errors import BundleError, MediScanError
from ...prediction.explanations import explain
from ...prediction.predictor import Predictor
from ...progress import Progress, tracked
from ...study.reading import read_image
from ..evaluating.randomization import STAGES, shuffled_copy
from .cases import Case, evenly
from .explaining import Failure, map_key, marks_key
from .grids import grid_of, rank_correlation, unpack
from .journal import Journal
from .models import Model
from .request import Request

SHUFFLED_CASES = 8
"""Cases that are looked at, evenly chosen from those reported."""

SHUFFLED = "shuffled"


def randomize(
    cases: Sequence[Case], models: Sequence[Model], request: Request, journal: Journal, progress: Progress
) -> list[Failure]:
    """Rank correlation of maps before and after the weights of a part were shuffled, into the journal.

    Raises:
        CancelledError: `progress` asked to stop.
        WriteError: The journal cannot be written.
    """
    failures: list[Failure] = []
    chosen = shuffled_cases(cases, request)
    work = [(model, stage, case) for model in models for stage in STAGES for case in chosen]
    copy: tuple[Model, str, Predictor] | None = None
    for model, stage, case in tracked(work, "randomization", len(work), progress):
        left = [
            method
            for method in request.methods
            if shuffled_key(case, model.name, method, stage) not in journal
            and map_key(case, model.name, method) in journal
        ]
        if not left:
            continue
        if copy is None or copy[0] is not model or copy[1] != stage:
            copy = (model, stage, shuffled_copy(model.predictor, stage, request.seed))
        finding = journal.get(marks_key(case))["finding"]
        try:
            image = read_image(case.image)
            for method in left:
                before = unpack(journal.get(map_key(case, model.name, method))["grid"])
                try:
                    maps = explain(copy[2], image, case.record, method=method, findings=[finding]).maps
                    value: Any = rank_correlation(before, grid_of(maps, finding))
                except BundleError:  # random weights may well overflow
                    value = None
                journal.put(shuffled_key(case, model.name, method, stage), value)
        except MediScanError as error:
            if error.code in ("write_failed", "cancelled"):
                raise
            failures.append(Failure(f"{case.name}, {model.name}, {stage} shuffled", str(error)))
    return failures


def shuffled_cases(cases: Sequence[Case], request: Request) -> list[Case]:
    """The cases that are looked at."""
    return evenly([case for case in cases if case.reported(request.split)], SHUFFLED_CASES)


def shuffled_key(case: Case, model: str, method: str, stage: str) -> tuple[str, ...]:
    """Names the similarity of one map in the journal."""
    return (SHUFFLED, *case.key, model, method, stage)
