"""How sure: what the head says when some of its features are dropped, and which findings cannot be excluded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..network.card import Calibration, Card, Limit
from ..network.fusion import FusionNetwork, GatedFusion, average_pool
from .calibrated import calibrated_probabilities
from .result import Finding, PredictionSet, Uncertainty

FloatArray = npt.NDArray[np.float64]

INTERVAL = (0.05, 0.95)
"""Percentiles of the dropout samples between which a probability is said to lie."""


class Entropies(NamedTuple):
    """Uncertainty of studies in shares of the largest possible entropy.

    Attributes:
        total: Entropy of the mean answer.
        epistemic: The part of it that is disagreement between the answers.
    """

    total: FloatArray
    epistemic: FloatArray


@torch.no_grad()
def draw(
    network: FusionNetwork,
    features: Tensor,
    values: Tensor,
    known: Tensor,
    calibration: Calibration | None,
    count: int,
) -> FloatArray:
    """Calibrated probabilities (image, sample, finding) of the head with dropout, without asking the encoder.

    Args:
        network: In evaluation mode.
        features: (image, C, *cells).
        values: (image, clinical_dim), standardized.
        known: (image, clinical_dim) bool.
        calibration: Of the probabilities.
        count: Samples.
    """
    features = features.to(network.disease.weight.dtype)  # the encoder may have run in reduced precision
    if isinstance(network.fusion, GatedFusion):  # it sees nothing of a map but its average
        features = average_pool(features)[:, :, None]
    logits = network.sampled(features, values, known, count).logits.transpose(0, 1)
    return calibrated_probabilities(logits.flatten(0, 1), calibration).unflatten(0, logits.shape[:2]).numpy()


def entropies(drawn: FloatArray) -> Entropies:
    """Of dropout samples (..., sample, finding): H(mean) and H(mean) - mean(H), the mutual information.

    Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning" (2011).
    """
    total = _entropy(drawn.mean(axis=-2))
    return Entropies(total, np.maximum(total - _entropy(drawn).mean(axis=-1), 0))


def uncertainty(drawn: FloatArray, limit: Limit | None) -> Uncertainty:
    """Of one study, from its dropout samples (sample, finding)."""
    total, epistemic = (float(value) for value in entropies(drawn))
    relative = None if limit is None else epistemic / limit.threshold
    return Uncertainty(samples=len(drawn), total=total, epistemic=epistemic, relative=relative)


def intervals(drawn: FloatArray) -> list[tuple[float, float]]:
    """`INTERVAL` of each finding, from dropout samples (sample, finding)."""
    low, high = np.quantile(drawn, INTERVAL, axis=0).clip(0, 1).tolist()
    return list(zip(low, high, strict=True))


def prediction_sets(probabilities: FloatArray, card: Card) -> list[PredictionSet]:
    """By coverage, the findings whose probability (finding,) does not exclude them; the likeliest first."""
    order = np.argsort(-probabilities, kind="stable")
    return [
        PredictionSet(
            coverage=level.coverage,
            labels=[card.labels[k] for k in order if probabilities[k] >= level.thresholds[k]],
        )
        for level in card.conformal
    ]


def contradicts(present: Sequence[bool], labels: Sequence[str]) -> str | None:
    """What cannot be true together in what reached its threshold, in words; None where nothing.

    A study is normal or has a finding: neither both nor nothing. A model without "normal" cannot contradict itself.
    """
    if "normal" not in labels:
        return None
    found = [label for label, is_present in zip(labels, present, strict=True) if is_present]
    if not found:
        return "No finding reaches its threshold, and normal does not either."
    diseases = [label for label in found if label != "normal"]
    if "normal" in found and diseases:
        return f"Both normal and {' and '.join(diseases)} reach their thresholds."
    return None


def reached(findings: Sequence[Finding]) -> list[bool]:
    """Which findings reach their threshold, the unsure ones too."""
    return [finding.probability >= finding.threshold for finding in findings]


def _entropy(probabilities: FloatArray) -> FloatArray:
    """Share of the largest possible, along the last axis."""
    terms = np.where(probabilities > 0, probabilities * np.log(np.where(probabilities > 0, probabilities, 1.0)), 0.0)
    entropy: FloatArray = -terms.sum(axis=-1) / np.log(max(probabilities.shape[-1], 2))
    return entropy
