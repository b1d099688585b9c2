"""Percentile bootstrap over patients (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
Statistic = Callable[[IntArray], Mapping[str, float]]

RESAMPLES = 1000
LEVEL = (2.5, 97.5)
ALLOWED_UNDEFINED = 0.5
"""Share of resamples that may be without a value (one class only) before no interval is given."""


@dataclass(frozen=True)
class Figure:
    """A measured figure with its 95 % interval; NaN where it is undefined.

    Attributes:
        value: Point estimate.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float = math.nan
    high: float = math.nan


def patient_resamples(
    patients: Sequence[str], rounds: int = RESAMPLES, seed: int = 0, strata: Sequence[str] | None = None
) -> Iterator[IntArray]:
    """Rows of `rounds` resamples; the rows of a patient stay together.

    Args:
        patients: Patient of each row.
        rounds: Resamples.
        seed: Of the resampling.
        strata: Group of each row within which patients are drawn, such as the source; one group where None. A patient
            name is taken as another patient in another group.
    """
    rng = np.random.default_rng(seed)
    groups = np.asarray(strata if strata is not None else [""] * len(patients))
    members: list[list[IntArray]] = []
    for stratum in np.unique(groups):
        rows = np.flatnonzero(groups == stratum)
        names, group = np.unique(np.asarray(patients)[rows], return_inverse=True)
        members.append([rows[group == i] for i in range(len(names))])
    for _ in range(rounds):
        yield np.concatenate([own[i] for own in members for i in rng.integers(0, len(own), len(own))])


def intervals(
    statistic: Statistic,
    patients: Sequence[str],
    rounds: int = RESAMPLES,
    seed: int = 0,
    strata: Sequence[str] | None = None,
) -> dict[str, Figure]:
    """Point estimates and 95 % intervals of several figures from the same resamples.

    Figures that are computed together are paired: the interval of their difference is that of the difference
    computed inside the statistic.

    Args:
        statistic: Figures by name of the rows at the given positions; NaN, or ValueError for all, where undefined.
        patients: Patient of each row.
        rounds: Resamples.
        seed: Of the resampling.
        strata: See `patient_resamples`.
    """
    everything = _asked(statistic, np.arange(len(patients)))
    drawn: dict[str, list[float]] = {name: [] for name in everything}
    for rows in patient_resamples(patients, rounds, seed, strata):
        for name, value in _asked(statistic, rows).items():
            if math.isfinite(value) and name in drawn:
                drawn[name].append(value)
    return {name: _figure(value, drawn[name], rounds) for name, value in everything.items()}


def _asked(statistic: Statistic, rows: IntArray) -> Mapping[str, float]:
    try:
        with np.errstate(invalid="ignore", divide="ignore"):
            return statistic(rows)
    except ValueError:  # one class only
        return {}


def _figure(value: float, drawn: Sequence[float], rounds: int) -> Figure:
    if not math.isfinite(value) or len(drawn) < max(1, ALLOWED_UNDEFINED * rounds):
        return Figure(value)
    low, high = np.percentile(drawn, LEVEL)
    return Figure(value, float(low), float(high))
