"""The composite loss: what the findings are, how severe it is, and not to be surer than the data allow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ..errors import DataError


class LossParts(NamedTuple):
    """Scalars; only `total` is weighted.

    Attributes:
        total: alpha L_disease + beta L_severity + gamma L_regularization.
        disease: L_disease.
        severity: L_severity.
        regularization: L_regularization.
    """

    total: torch.Tensor
    disease: torch.Tensor
    severity: torch.Tensor
    regularization: torch.Tensor


EXCLUDED = -1e4
"""Logit of a finding that is out of the question; finite, so that no gradient becomes NaN."""


class Denominators(NamedTuple):
    """What the sums over a batch are divided by.

    Given from outside, they let parts of a batch, one after another or in several processes, add up to the loss of
    the whole batch.

    Attributes:
        disease: Sum of the weights of the studies whose label says something.
        severity: Studies whose severity is known.
        studies: All studies.
        marked: Studies on which readers marked the finding.
    """

    disease: float
    severity: float
    studies: float
    marked: float = 1.0


class CompositeLoss(nn.Module):
    """L = alpha L_disease + beta L_severity + gamma L_regularization.

    L_disease is the cross entropy over candidate labels, -log(sum of p_k over the allowed k) (Jin and Ghahramani,
    "Learning with Multiple Labels", NIPS 2002). One allowed class makes it ordinary cross entropy; all allowed say
    nothing, and such a study neither adds to the loss nor thins it.

    L_severity is the binary cross entropy between the sigmoid of the severity logit and the score as a fraction of its
    scale, over the studies whose severity is known; 0 if there is none.

    L_regularization is the confidence penalty log K - H(p) (Pereyra et al., "Regularizing Neural Networks by
    Penalizing Confident Output Distributions", ICLR workshop 2017): 0 for even probabilities, log K for certainty.
    Weights are held small by the optimizer's decoupled weight decay, not here.

    Args:
        disease_weight: alpha.
        severity_weight: beta.
        regularization_weight: gamma.
        class_weights: One weight a class, against imbalance. The mean is taken over weights; a study with several
            allowed classes has their mean weight.
        label_smoothing: Share of the target spread evenly over all classes that are not EXCLUDED, 0 to below 1.
    """

    class_weights: torch.Tensor | None

    def __init__(
        self,
        disease_weight: float = 1.0,
        severity_weight: float = 0.5,
        regularization_weight: float = 0.01,
        *,
        class_weights: Sequence[float] | torch.Tensor | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.disease_weight = disease_weight
        self.severity_weight = severity_weight
        self.regularization_weight = regularization_weight
        self.label_smoothing = label_smoothing
        weights = None if class_weights is None else torch.as_tensor(class_weights, dtype=torch.float32)
        self.register_buffer("class_weights", weights)

    def forward(
        self,
        logits: torch.Tensor,
        allowed: torch.Tensor,
        severity: torch.Tensor,
        severity_target: torch.Tensor,
        denominators: Denominators | None = None,
    ) -> LossParts:
        """Loss of a batch, or the share of a part of a batch in it.

        Args:
            logits: (B, K).
            allowed: (B, K) bool, True for every class that the label leaves possible.
            severity: (B,) logits.
            severity_target: (B,) 0 to 1, NaN where unknown.
            denominators: Of the whole batch where this is a part of it; None where it is the whole.

        Raises:
            DataError: A study allows no class, or a severity lies outside 0 to 1.
        """
        whole = denominators or self.denominators(allowed, severity_target)
        disease = self._disease(logits, allowed, whole.disease)
        severe = self._severity(severity, severity_target, whole.severity)
        regularization = _confidence(logits, whole.studies)
        total = (
            self.disease_weight * disease + self.severity_weight * severe + self.regularization_weight * regularization
        )
        return LossParts(total, disease, severe, regularization)

    def denominators(self, allowed: torch.Tensor, severity_target: torch.Tensor) -> Denominators:
        """What the sums over these studies are divided by; a sum over none is divided by something harmless."""
        weight = float(self._study_weights(allowed).sum())
        known = int((~torch.isnan(severity_target)).sum())
        return Denominators(max(weight, torch.finfo(torch.float32).tiny), max(known, 1), len(allowed))

    def _study_weights(self, allowed: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(allowed.shape[1]) if self.class_weights is None else self.class_weights
        informative = ~allowed.all(dim=1)
        return informative * (allowed * weights.to(allowed.device)).sum(1) / allowed.sum(1)

    def _disease(self, logits: torch.Tensor, allowed: torch.Tensor, denominator: float) -> torch.Tensor:
        if not bool(allowed.any(dim=1).all()):
            raise DataError("A study allows no class at all. Allow every class where the label says nothing.")
        log_p = functional.log_softmax(logits, dim=1)
        candidates = -torch.logsumexp(log_p.masked_fill(~allowed, -torch.inf), dim=1)
        weights = torch.ones_like(log_p[0]) if self.class_weights is None else self.class_weights.to(log_p)
        possible = logits > EXCLUDED / 2
        share = torch.where(possible, log_p * weights, 0.0).sum(1) / possible.sum(1).clamp_min(1)
        even = (~allowed.all(dim=1)).to(log_p) * -share
        smoothing = self.label_smoothing
        summed = ((1 - smoothing) * self._study_weights(allowed).to(log_p) * candidates + smoothing * even).sum()
        return summed / denominator

    def _severity(self, severity: torch.Tensor, target: torch.Tensor, denominator: float) -> torch.Tensor:
        known = ~torch.isnan(target)
        filled = torch.where(known, target, 0.0).to(severity.dtype)
        if not bool(((filled >= 0) & (filled <= 1)).all()):
            raise DataError("A severity lies outside 0 to 1. Divide it by the maximum of its scale.")
        each = functional.binary_cross_entropy_with_logits(severity, filled, reduction="none")
        return torch.where(known, each, 0.0).sum() / denominator


def _confidence(logits: torch.Tensor, denominator: float) -> torch.Tensor:
    """KL divergence from even probabilities, log K - H(p), mean over the batch."""
    log_p = functional.log_softmax(logits, dim=1)
    entropy = -(log_p.exp() * log_p).sum(1)
    return (math.log(logits.shape[1]) - entropy).sum() / denominator
