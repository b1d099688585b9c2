"""Method by metric: where the maps lie, whether the model leans on them, and whether they stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..evaluating.bootstrap import Figure
from ..evaluating.localization import MASS, OVERLAP, POINTING
from .cases import Case
from .means import mean_figures
from .request import Request
from .results import BLOB, Found, Results, Scores

STEADINESS, VS_BLOB, VS_AREA, COST = "steadiness", "pointing game - blob's", "relevance mass - area", "relative cost"
COMPARED = (POINTING, OVERLAP, MASS, "deletion gain", "insertion gain", STEADINESS)
"""Figures in which each method is compared with the first one, on the same cases."""

ALL = "all"


@dataclass(frozen=True)
class MethodScores:
    """One method of one model, or the blob, on a group of cases.

    Attributes:
        model: Model; "" for the blob.
        method: Method.
        group: Source of images and marks, or ALL.
        label: Finding, or ALL.
        cases: Number of cases.
        patients: Number of patients.
        area: Mean share of the image that is marked; None where nothing is.
        threshold: Fraction of the map's own peak for the IoU; None where it could not be tuned.
        figures: Means by name; what was not measured is not there.
        empty: Maps that were empty.
    """

    model: str
    method: str
    group: str
    label: str
    cases: int
    patients: int
    area: float | None
    threshold: float | None
    figures: Mapping[str, Figure]
    empty: int = 0


@dataclass(frozen=True)
class Difference:
    """A method minus the first one, on the cases of which both say something.

    Attributes:
        model: Model.
        method: Method.
        reference: The first method.
        cases: Number of cases.
        figures: Paired mean differences by name of COMPARED.
    """

    model: str
    method: str
    reference: str
    cases: int
    figures: Mapping[str, Figure]


def method_scores(results: Results, request: Request) -> list[MethodScores]:
    """Every method of every model over all cases, then by group and finding; after each the blob."""
    groups = list(dict.fromkeys((item.case.group, item.finding) for item in results.found))
    wanted = [(ALL, ALL), *(groups if len(groups) > 1 else [])]
    return [row for group, label in wanted for row in _of_group(results, group, label, request)]


def differences(results: Results, request: Request) -> list[Difference]:
    """Each further method beside the first, by model."""
    first, *others = request.methods
    found = []
    for model in dict.fromkeys(item.model for item in results.found):
        reference = {item.case.key: item for item in results.of(model, first)}
        for method in others:
            pairs = [
                (item, reference[item.case.key]) for item in results.of(model, method) if item.case.key in reference
            ]
            if pairs:
                found.append(_difference(model, method, first, pairs, results, request))
    return found


def _of_group(results: Results, group: str, label: str, request: Request) -> list[MethodScores]:
    own = [item for item in results.found if group == ALL or (item.case.group, item.finding) == (group, label)]
    rows = []
    for model, method in dict.fromkeys((item.model, item.method) for item in own):
        items = [item for item in own if (item.model, item.method) == (model, method)]
        columns = [_columns(item, results) for item in items]
        cases = [item.case for item in items]
        empty = sum(item.grid.max() <= 0 for item in items)
        rows.append(
            MethodScores(
                **_shared(cases, [item.area for item in items]),
                model=model,
                method=method,
                group=group,
                label=label,
                threshold=results.thresholds[model, method],
                figures=_means(columns, cases, request),
                empty=int(empty),
            )
        )
    marked = {item.case.key: item for item in own if item.case.key in results.blob}
    if marked:
        cases = [item.case for item in marked.values()]
        rows.append(
            MethodScores(
                **_shared(cases, [item.area for item in marked.values()]),
                model="",
                method=BLOB,
                group=group,
                label=label,
                threshold=results.blob_threshold,
                figures=_means([results.blob[key] for key in marked], cases, request),
            )
        )
    return rows


def _columns(item: Found, results: Results) -> Scores:
    """Every value of one case."""
    scores = results.scores(item)
    blob = results.blob.get(item.case.key, {})
    return {
        **scores,
        VS_BLOB: _minus(scores.get(POINTING), blob.get(POINTING)),
        VS_AREA: _minus(scores.get(MASS), item.area),
        **item.faithfulness,
        STEADINESS: item.steadiness,
        COST: item.piece["relative_cost"],
    }


def _difference(
    model: str,
    method: str,
    reference: str,
    pairs: Sequence[tuple[Found, Found]],
    results: Results,
    request: Request,
) -> Difference:
    columns: list[Scores] = []
    for item, other in pairs:
        one, two = _columns(item, results), _columns(other, results)
        columns.append({name: _minus(one.get(name), two.get(name)) for name in COMPARED})
    cases = [item.case for item, _ in pairs]
    return Difference(model, method, reference, len(pairs), _means(columns, cases, request))


def _means(columns: Sequence[Scores], cases: Sequence[Case], request: Request) -> dict[str, Figure]:
    names = dict.fromkeys(name for column in columns for name in column)
    return mean_figures(
        {name: [column.get(name) for column in columns] for name in names},
        [case.patient for case in cases],
        request.resamples,
        [case.group for case in cases],
        request.seed,
    )


def _shared(cases: Sequence[Case], areas: Sequence[float | None]) -> dict:
    known = [area for area in areas if area is not None]
    return {
        "cases": len(cases),
        "patients": len({(case.group, case.patient) for case in cases}),
        "area": sum(known) / len(known) if known else None,
    }


def _minus(one: float | bool | None, other: float | bool | None) -> float | None:
    return None if one is None or other is None else float(one) - float(other)
