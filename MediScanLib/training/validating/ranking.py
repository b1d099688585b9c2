"""AUC-ROC where a study may have several equally likely answers, and all of a resample at the cost of a product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..evaluating.bootstrap import IntArray

FloatArray = npt.NDArray[np.float64]


class Ranking:
    """How often each positive study is ranked above each negative one.

    The AUC-ROC is the mean of that over the pairs (Hanley and McNeil, Radiology 1982). Where a study has several
    answers, such as one for each set of known fields, one of them is drawn at random: the expectation is exact.

    Args:
        truth: (study,) whether the finding is there.
        scores: Answers of each study, one or more.
    """

    def __init__(self, truth: npt.NDArray[np.bool_], scores: Sequence[Sequence[float]]) -> None:
        self._truth = truth
        positives = [np.asarray(scores[i], dtype=np.float64) for i in np.flatnonzero(truth).tolist()]
        negatives = [np.asarray(scores[i], dtype=np.float64) for i in np.flatnonzero(~truth).tolist()]
        self._above = np.array([[_above(one, other) for other in negatives] for one in positives])

    def auc(self, rows: IntArray) -> float:
        """AUC-ROC of the studies at these positions, which may repeat.

        Raises:
            ValueError: One class only.
        """
        counts = np.bincount(rows, minlength=len(self._truth)).astype(np.float64)
        positive, negative = counts[self._truth], counts[~self._truth]
        pairs = positive.sum() * negative.sum()
        if pairs == 0:
            raise ValueError("one class only")
        return float(positive @ self._above @ negative / pairs)


def _above(one: FloatArray, other: FloatArray) -> float:
    """Share of the pairs in which `one` is larger; a tie counts half."""
    ordered = np.sort(other)
    below, upto = np.searchsorted(ordered, one, "left"), np.searchsorted(ordered, one, "right")
    return float((below + upto).mean() / (2 * len(other)))
