"""What small changes of the image do to the maps, and what shuffled weights do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..evaluating.bootstrap import Figure
from ..evaluating.randomization import STAGES
from .cases import Case
from .explaining import PERTURBATIONS
from .journal import Journal
from .means import mean_figures
from .models import Model
from .randomizing import shuffled_cases, shuffled_key
from .request import Request
from .results import Results

SIMILARITY, CHANGE, FLIPPED = "rank correlation", "change of probability", "decisions changed"


@dataclass(frozen=True)
class Robustness:
    """Maps before and after a small change of the image.

    Attributes:
        model: Model.
        method: Method.
        perturbation: Name.
        cases: Number of cases.
        undefined: Cases with an empty map before or after.
        figures: SIMILARITY of the maps; of the model itself the amount of CHANGE of the finding's probability, and the
            share of its decisions that changed.
    """

    model: str
    method: str
    perturbation: str
    cases: int
    undefined: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class Shuffled:
    """Maps before and after the weights of a part were shuffled.

    Attributes:
        model: Model.
        method: Method.
        stage: Which part.
        maps: Maps compared.
        vanished: Maps that were empty or even afterwards, and have no rank correlation.
        similarity: Rank correlation, mean; near 0 is right.
    """

    model: str
    method: str
    stage: str
    maps: int
    vanished: int
    similarity: Figure | None


def robustness(results: Results, request: Request) -> list[Robustness]:
    """By model, method and perturbation; empty where not measured."""
    table = []
    for model, method in dict.fromkeys((item.model, item.method) for item in results.found):
        items = [item for item in results.of(model, method) if item.robustness]
        for name in PERTURBATIONS if items else ():
            parts = [item.robustness[name] for item in items]
            cases = [item.case for item in items]
            figures = mean_figures(
                {
                    SIMILARITY: [part["similarity"] for part in parts],
                    CHANGE: [abs(part["change"]) for part in parts],
                    FLIPPED: [
                        part["decision"] != item.piece["decision"] for part, item in zip(parts, items, strict=True)
                    ],
                },
                [case.patient for case in cases],
                request.resamples,
                [case.group for case in cases],
                request.seed,
            )
            undefined = sum(part["similarity"] is None for part in parts)
            table.append(Robustness(model, method, name, len(items), undefined, figures))
    return table


def shuffled(cases: Sequence[Case], models: Sequence[Model], request: Request, journal: Journal) -> list[Shuffled]:
    """By model, method and stage; empty where not measured."""
    table = []
    for model in models:
        for method in request.methods:
            for stage in STAGES:
                own = [
                    (case, journal.get(shuffled_key(case, model.name, method, stage)))
                    for case in shuffled_cases(cases, request)
                    if shuffled_key(case, model.name, method, stage) in journal
                ]
                if own:
                    values = [value for _, value in own]
                    figures = mean_figures(
                        {"": values}, [case.patient for case, _ in own], request.resamples, seed=request.seed
                    )
                    vanished = sum(value is None for value in values)
                    table.append(Shuffled(model.name, method, stage, len(own), vanished, figures.get("")))
    return table
