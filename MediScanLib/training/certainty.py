"""When a network may be trusted: limits that are chosen on the validation split, and nothing but numbers ships."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from crepes import ConformalClassifier

from ..network.card import ConformalLevel, Limit
from ..prediction.certainty import contradicts
from .datasets import LABELS, Study

Array = npt.NDArray[np.float64]

COVERAGES = (0.8, 0.9, 0.95)
"""Of the prediction sets that a model comes with."""

KEPT = 0.8
"""Share of val on which the model must speak; the others are the least certain."""

AGREEING = 0.98
"""Share of val whose epistemic uncertainty is accepted."""

NEEDED_GAIN = 0.01
"""Mean AUC within source that the clinical values must add on val before a study without them is deferred."""

NEEDED_KNOWN = 0.5
"""Share of training studies in which a field must be known before a study without it is unlike them."""


def fit_conformal(studies: Sequence[Study], probabilities: Array, fitted_on: str) -> list[ConformalLevel]:
    """Limits of class-conditional prediction sets, from calibrated probabilities (study, label) on held-out studies.

    A finding's nonconformity is one minus its probability; each finding is compared with the studies that have it, so
    that every finding keeps the coverage (Mondrian categories: Vovk, "Conditional validity of inductive conformal
    predictors", ACML 2012). Studies whose label is no finding, such as benign, take no part: no set holds "other".
    """
    labelled = [i for i, study in enumerate(studies) if study.label in LABELS]
    truth = np.array([LABELS.index(studies[i].label) for i in labelled], dtype=np.int64)
    strangeness = 1 - probabilities[labelled, truth]
    levels = []
    for coverage in COVERAGES:
        thresholds = [_lowest_member(strangeness[truth == k], coverage) for k in range(len(LABELS))]
        levels.append(ConformalLevel(coverage=coverage, thresholds=thresholds, fitted_on=fitted_on))
    return levels


def _lowest_member(strangeness: Array, coverage: float) -> float:
    """The lowest probability whose p-value among the studies of a finding is above 1 - coverage; 0 where all are."""
    if not len(strangeness):
        return 0.0
    # smallest first; p-values fall on the way, and those of the studies themselves are all that can change a set
    candidates = np.unique(strangeness)
    classifier = ConformalClassifier().fit(strangeness)
    least = 1 - coverage + 1e-9  # p-values are fractions of few studies: 1/5 must not count as more than 1 - 0.8
    within = classifier.predict_p(candidates[:, None], smoothing=False)[:, 0] > least
    beyond = classifier.predict_p(np.array([[np.inf]]), smoothing=False)[0, 0] > least
    if beyond or not within.any():
        return 0.0
    return float(np.floor((1 - candidates[within].max()) * 1e6) / 1e6)


def fit_confidence(probabilities: Array, thresholds: Sequence[float], fitted_on: str) -> Limit:
    """The lowest probability of the likeliest finding with which `KEPT` of the studies are accepted.

    Studies whose findings contradict each other are left to a human whatever the probability: they are counted among
    the least certain. docs/decisions/0008 compares this with other measures of certainty.

    Args:
        probabilities: (study, label) calibrated.
        thresholds: (label,) of the operating point.
        fitted_on: Which studies these are.
    """
    present = probabilities >= np.asarray(thresholds)
    contradicting = np.array([contradicts(list(row), LABELS) is not None for row in present])
    certainty = np.where(contradicting, 0.0, probabilities.max(axis=1))
    threshold = float(np.quantile(certainty, 1 - KEPT))
    return Limit(threshold=max(round(threshold, 6), 1e-6), accepted=KEPT, fitted_on=fitted_on)


def fit_epistemic(epistemic: Array, fitted_on: str) -> Limit | None:
    """The largest epistemic uncertainty (study,) that is accepted; None where there is none, as without dropout."""
    threshold = float(np.quantile(epistemic, AGREEING))
    return Limit(threshold=threshold, accepted=AGREEING, fitted_on=fitted_on) if threshold > 0 else None


def needed_fields(gain: float, known_fraction: dict[str, float]) -> list[str]:
    """Clinical values whose absence is a reason to defer.

    Args:
        gain: Mean AUC within source on val with the clinical values, minus that without.
        known_fraction: Share of training studies in which a field is known, by field.
    """
    if not gain > NEEDED_GAIN:
        return []
    return [name for name, share in known_fraction.items() if share >= NEEDED_KNOWN]
