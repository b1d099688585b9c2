"""What is asked of the model: evidence for some findings, and against one other where it shall be a contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import UsageError
from ...network.card import Calibration, Card
from ..attribution import log_odds
from ..calibrated import calibrated_probabilities


@dataclass(frozen=True)
class Question:
    """Findings to explain.

    Attributes:
        labels: All findings of the model, in the order of its logits.
        findings: Those to explain.
        against: "Why this and not that": evidence counts where it speaks for the finding more than for this one.
    """

    labels: tuple[str, ...]
    findings: tuple[str, ...]
    against: str | None = None

    @classmethod
    def of(cls, card: Card, findings: Sequence[str] | None, against: str | None) -> Question:
        """A question that the model can answer.

        Args:
            card: Of the model.
            findings: None for all, but the one they are told from.
            against: See the class.

        Raises:
            UsageError: A finding that the model does not know, one named twice, none, or one told from itself.
        """
        known = ", ".join(card.labels)
        asked = [label for label in card.labels if label != against] if findings is None else list(findings)
        for label in [*asked, *([] if against is None else [against])]:
            if label not in card.labels:
                raise UsageError(f"{card.name} knows no finding {label!r}. Choose from {known}.")
        if not asked:
            raise UsageError(f"No finding was chosen to explain. Choose from {known}.")
        if len(set(asked)) != len(asked):
            raise UsageError(f"A finding is named twice: {', '.join(asked)}.")
        if against in asked:
            raise UsageError(f"{against!r} cannot be told from itself. Choose two findings.")
        return cls(tuple(card.labels), tuple(asked), against)

    @property
    def directions(self) -> Tensor:
        """(finding, logit): the scores to explain are `logits @ directions.T`, y_k or y_k - y_j."""
        rows = torch.zeros(len(self.findings), len(self.labels))
        for row, label in zip(rows, self.findings, strict=True):
            row[self.labels.index(label)] = 1.0
            if self.against is not None:
                row[self.labels.index(self.against)] = -1.0
        return rows

    def log_odds(self, logits: Tensor, calibration: Calibration | None) -> Tensor:
        """(sample, finding) float64 on the CPU: calibrated log(p / (1 - p)), or log(p / p of the other finding)."""
        probabilities = calibrated_probabilities(logits, calibration).numpy()
        if self.against is None:
            odds = log_odds(probabilities)
        else:
            logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
            odds = logs - logs[:, [self.labels.index(self.against)]]
        return torch.from_numpy(odds[:, [self.labels.index(label) for label in self.findings]])
