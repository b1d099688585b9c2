"""From logits to probabilities that can be taken at their word."""

from __future__ import annotations

import torch
from torch import Tensor

from ..network.card import Calibration


def calibrated_probabilities(logits: Tensor, calibration: Calibration | None) -> Tensor:
    """Probabilities (study, label), float64 on the CPU; plain softmax where there is no calibration."""
    logits = logits.double().cpu()
    if calibration is not None:
        scale, shift = (torch.tensor(part, dtype=torch.float64) for part in (calibration.scale, calibration.shift))
        logits = logits * scale + shift
    return torch.softmax(logits, dim=1)
