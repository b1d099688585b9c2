"""AdamW with a slower encoder, and its learning rate over time."""

from __future__ import annotations

import math

import torch
from torch.optim.lr_scheduler import LambdaLR

from ..config import TrainingConfig
from ..network.fusion import FusionNetwork


def make_optimizer(network: FusionNetwork, settings: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019) over four groups: encoder and head, with and without weight decay.

    Biases and norms are not decayed: small values have no meaning for them.
    """
    groups = []
    for in_encoder, rate in ((True, settings.learning_rate * settings.encoder_rate), (False, settings.learning_rate)):
        members = [p for name, p in network.named_parameters() if name.startswith("encoder.") == in_encoder]
        for decayed in (True, False):
            chosen = [parameter for parameter in members if (parameter.ndim > 1) == decayed]
            groups.append({"params": chosen, "lr": rate, "weight_decay": settings.weight_decay if decayed else 0.0})
    return torch.optim.AdamW([group for group in groups if group["params"]])


def make_schedule(optimizer: torch.optim.Optimizer, settings: TrainingConfig, steps_per_epoch: int) -> LambdaLR:
    """Linear warm-up, then half a cosine to zero (Loshchilov and Hutter, ICLR 2017)."""
    warmup, total = settings.warmup_epochs * steps_per_epoch, settings.epochs * steps_per_epoch
    return LambdaLR(optimizer, lambda step: rate_at(step, warmup, total))


def rate_at(step: int, warmup: int, total: int) -> float:
    """Fraction of the peak learning rate at an optimizer step, counted from 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
