"""Means over cases with patient-level intervals, where a case may lack a value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..evaluating.bootstrap import Figure, IntArray, intervals


def mean_figures(
    columns: Mapping[str, Sequence[float | bool | None]],
    patients: Sequence[str],
    resamples: int,
    strata: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, Figure]:
    """The mean of every column that has a value, all from the same resamples.

    Args:
        columns: One value a case, None where it is undefined.
        patients: Patient of each case.
        resamples: Of the bootstrap.
        strata: Group of each case within which patients are drawn.
        seed: Of the resampling.
    """
    there = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    if not there:
        return {}
    table = np.array(
        [[math.nan if value is None else float(value) for value in values] for values in there.values()]
    ).T
    known = np.isfinite(table)
    filled = np.where(known, table, 0.0)

    def statistic(rows: IntArray) -> Mapping[str, float]:
        counts = known[rows].sum(axis=0)
        sums = filled[rows].sum(axis=0)
        return {
            name: float(total / count) if count else math.nan
            for name, total, count in zip(there, sums, counts, strict=True)
        }

    return intervals(statistic, patients, resamples, seed, strata)
