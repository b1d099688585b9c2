"""Agreement between methods and between models: of the same case, on the same cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..evaluating.bootstrap import Figure
from .grids import hot_overlap, rank_correlation
from .means import mean_figures
from .request import Request
from .results import Found, Results

RANKS, HOT, PROBABILITY = "rank correlation", "IoU of the hottest tenth", "difference of probability"


@dataclass(frozen=True)
class Agreement:
    """How two makers of maps agree, means over cases.

    Attributes:
        kind: "methods" of one model, or "models" under one method.
        within: The model, or the method, that they share.
        first: Method or model.
        second: Method or model.
        cases: Number of cases.
        undefined: Cases with an empty map, which have no rank correlation.
        figures: RANKS and HOT; for models also PROBABILITY, its amount.
    """

    kind: str
    within: str
    first: str
    second: str
    cases: int
    undefined: int
    figures: Mapping[str, Figure]


@dataclass(frozen=True)
class _Pair:
    """Two maps of one case."""

    kind: str
    within: str
    first: Found
    second: Found
    ranks: float | None
    hot: float | None


@dataclass(frozen=True, eq=False)
class Agreements:
    """All of them.

    Attributes:
        table: Means over cases.
        by_case: Mean rank correlation over all pairs of a case; None where there is no pair, or none is defined.
        by_map: Mean rank correlation of one map with the others of its case, by case, model and method.
    """

    table: Sequence[Agreement]
    by_case: Mapping[tuple[str, str, str], float | None]
    by_map: Mapping[tuple[tuple[str, str, str], str, str], float | None]


def agreements(results: Results, request: Request) -> Agreements:
    """Every method with every other of the same model, every model with every other under the same method."""
    pairs = _pairs(results)
    table = []
    for kind, within, first, second in dict.fromkeys(_names(pair) for pair in pairs):
        own = [pair for pair in pairs if _names(pair) == (kind, within, first, second)]
        columns: dict[str, Sequence[float | None]] = {
            RANKS: [pair.ranks for pair in own],
            HOT: [pair.hot for pair in own],
        }
        if kind == "models":
            columns[PROBABILITY] = [
                abs(pair.first.piece["probability"] - pair.second.piece["probability"]) for pair in own
            ]
        cases = [pair.first.case for pair in own]
        figures = mean_figures(
            columns,
            [case.patient for case in cases],
            request.resamples,
            [case.group for case in cases],
            request.seed,
        )
        undefined = sum(pair.ranks is None for pair in own)
        table.append(Agreement(kind, within, first, second, len(own), undefined, figures))
    by_case = {
        case.key: _mean([pair.ranks for pair in pairs if pair.first.case.key == case.key]) for case in results.cases
    }
    by_map = {
        (item.case.key, item.model, item.method): _mean(
            [pair.ranks for pair in pairs if item is pair.first or item is pair.second]
        )
        for item in results.found
    }
    return Agreements(table, by_case, by_map)


def _pairs(results: Results) -> list[_Pair]:
    found = []
    by_case: dict[tuple[str, str, str], list[Found]] = {}
    for item in results.found:
        by_case.setdefault(item.case.key, []).append(item)
    for items in by_case.values():
        for one, other in combinations(items, 2):
            kind = "methods" if one.model == other.model else "models" if one.method == other.method else ""
            if kind:
                ranks, hot = rank_correlation(one.grid, other.grid), hot_overlap(one.grid, other.grid)
                found.append(_Pair(kind, one.model if kind == "methods" else one.method, one, other, ranks, hot))
    return found


def _names(pair: _Pair) -> tuple[str, str, str, str]:
    if pair.kind == "methods":
        return pair.kind, pair.within, pair.first.method, pair.second.method
    return pair.kind, pair.within, pair.first.model, pair.second.model


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
