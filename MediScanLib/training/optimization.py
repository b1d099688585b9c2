"""Which weights learn, by AdamW with a slower encoder, and at which rate over time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ..config import TrainingConfig
from ..network.encoders import Encoder
from ..network.fusion import FusionNetwork
from .answering import evaluating


def freeze(encoder: Encoder, stride: int, *, depthwise: bool) -> None:
    """Take the gradient from the first layers of an encoder, and from its depthwise convolutions.

    Args:
        encoder: Encoder.
        stride: Layers whose cells stand at most so many input pixels apart are frozen; 0 for none.
        depthwise: Whether convolutions with one channel a group, and the norms behind them, are frozen too.
    """
    if stride:
        edge = 2 * encoder.stride
        image = torch.zeros(1, encoder.in_channels, *[edge] * encoder.spatial_dims)
        with evaluating(encoder), torch.no_grad():
            _freeze_leading(encoder.layers, image.to(next(encoder.parameters()).device), edge, stride)
    if depthwise:
        for parent in encoder.modules():
            behind = False
            for module in parent.children():
                behind = behind and isinstance(module, nn.modules.batchnorm._BatchNorm)
                if behind or _is_depthwise(module):
                    module.requires_grad_(False)
                behind = _is_depthwise(module)


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Conv3d) and 1 < module.groups == module.in_channels


def _freeze_leading(layers: nn.Module, image: Tensor, edge: int, stride: int) -> None:
    """Freeze layers up to the first that is too coarse, and inside that one where it is a sequence itself."""
    for layer in layers.children():
        out: Tensor = layer(image)
        if edge // out.shape[-1] > stride:
            if type(layer) is nn.Sequential:
                _freeze_leading(layer, image, edge, stride)
            return
        layer.requires_grad_(False)
        image = out


def make_optimizer(network: FusionNetwork, settings: TrainingConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019) over four groups: encoder and head, with and without weight decay.

    Biases and norms are not decayed: small values have no meaning for them.
    """
    groups = []
    parts = (
        (True, settings.learning_rate * settings.encoder_rate, settings.weight_decay),
        (False, settings.learning_rate, settings.head_weight_decay),
    )
    for in_encoder, rate, decay in parts:
        named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
        members = [parameter for name, parameter in named if name.startswith("encoder.") == in_encoder]
        for decayed in (True, False):
            chosen = [parameter for parameter in members if (parameter.ndim > 1) == decayed]
            groups.append({"params": chosen, "lr": rate, "weight_decay": decay if decayed else 0.0})
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
