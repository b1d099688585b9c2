"""Whether prediction sets hold the true finding as often as they claim, finding by finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from .answers import Answers
from .bootstrap import RESAMPLES, Figure, IntArray, intervals

COVERED, SIZE, EMPTY = "empirical coverage", "mean set size", "empty sets"


@dataclass(frozen=True)
class SetCoverage:
    """Sets of one nominal coverage over the studies that have one finding, or over all that have one of them.

    Attributes:
        coverage: Nominal.
        label: True finding; None for all.
        studies: How many.
        patients: Of how many patients.
        binomial: Between which shares 95 % of such counts would lie if studies were independent and the limits exact;
            both are optimistic, so that a share somewhat outside proves nothing.
        figures: `COVERED`, `SIZE` and `EMPTY`, with intervals over patients.
    """

    coverage: float
    label: str | None
    studies: int
    patients: int
    binomial: tuple[float, float]
    figures: Mapping[str, Figure]

    @property
    def within(self) -> bool:
        """Whether the coverage lies in the binomial interval of the nominal one."""
        return self.binomial[0] <= self.figures[COVERED].value <= self.binomial[1]


def set_coverage(answers: Answers, resamples: int = RESAMPLES) -> list[SetCoverage]:
    """Coverage by finding and over all, for each nominal coverage; empty where the model has no sets."""
    found = [label if (label := study.label) in answers.labels else None for study in answers.studies]
    table = []
    for coverage in answers.sets:
        rows_by_label = {label: [i for i, own in enumerate(found) if own == label] for label in answers.labels}
        rows_by_label[""] = [i for i, own in enumerate(found) if own is not None]
        table += [
            _of_rows(answers, coverage, label or None, np.array(rows, dtype=np.int64), found, resamples)
            for label, rows in rows_by_label.items()
            if rows
        ]
    return table


def _of_rows(
    answers: Answers,
    coverage: float,
    label: str | None,
    rows: IntArray,
    found: Sequence[str | None],
    resamples: int,
) -> SetCoverage:
    members = answers.sets[coverage][rows]
    truth = np.array([answers.labels.index(str(found[i])) for i in rows])
    covered = members[np.arange(len(rows)), truth].astype(np.float64)
    sizes = members.sum(axis=1)
    patients = [f"{answers.studies[i].source} {answers.studies[i].patient}" for i in rows]

    def statistic(chosen: IntArray) -> Mapping[str, float]:
        return {
            COVERED: float(covered[chosen].mean()),
            SIZE: float(sizes[chosen].mean()),
            EMPTY: float((sizes[chosen] == 0).mean()),
        }

    low, high = binom.interval(0.95, len(rows), coverage)
    return SetCoverage(
        coverage,
        label,
        len(rows),
        len(set(patients)),
        (float(low) / len(rows), float(high) / len(rows)),
        intervals(statistic, patients, resamples),
    )
