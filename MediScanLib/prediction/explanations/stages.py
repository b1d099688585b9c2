"""Encoders taken apart: what they look like before they shrink the image for the last time."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...network.encoders import Encoder, Hypercolumns
from ...network.fusion import FusionNetwork


class Stage(NamedTuple):
    """A feature map on the way through the encoder.

    Attributes:
        position: Steps of the encoder that made it.
        activations: (B, C, *cells).
        finer: Cells along an axis for each cell of the last feature map, a power of two.
    """

    position: int
    activations: Tensor
    finer: int


class Encoded(NamedTuple):
    """What the encoder made of a batch.

    Attributes:
        features: (B, C, *cells), as of `FusionNetwork.features`.
        stage: The last feature map that is finer than these; these themselves, not yet standardized, where the
            encoder has no such stage.
    """

    features: Tensor
    stage: Stage


def encode(network: FusionNetwork, image: Tensor) -> Encoded:
    """As `network.features`, keeping the finer map that it passes through on the way."""
    steps, level = _steps(network.encoder)
    fine = now = image
    finest: Stage | None = None
    finer_than_last = range(1, len(steps) if level is None else level + 1)
    for position, step in enumerate(steps):
        before, now = now, step(now)
        if position in finer_than_last and now.shape[2:].numel() < before.shape[2:].numel():
            finest = Stage(position, before, 1)
        if position == level:
            fine = now
    last = now if level is None else _both(fine, now)
    if finest is None:
        stage = Stage(len(steps), last, 1)
    else:
        ratio = max(a / b for a, b in zip(finest.activations.shape[2:], last.shape[2:], strict=True))
        stage = finest._replace(finer=2 ** round(math.log2(ratio)))
    return Encoded(standardized(network, last), stage)


def features_from(network: FusionNetwork, stage: Stage, activations: Tensor) -> Tensor:
    """`network.features` for other activations at that stage."""
    steps, level = _steps(network.encoder)
    fine = now = activations
    for position in range(stage.position, len(steps)):
        now = steps[position](now)
        if position == level:
            fine = now
    whole = stage.position == len(steps)
    return standardized(network, now if whole or level is None else _both(fine, now))


def standardized(network: FusionNetwork, encoded: Tensor) -> Tensor:
    """What the encoder says, by channel as `network.features` has it."""
    mean, std = channel_statistics(network)
    return (encoded - mean) / std


def channel_statistics(network: FusionNetwork) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the encoder's channels, to be taken with a feature map."""
    shape = (-1, *[1] * network.encoder.spatial_dims)
    return network.feature_mean.reshape(shape), network.feature_std.reshape(shape)


def _steps(encoder: Encoder) -> tuple[list[nn.Module], int | None]:
    """Modules that are called one after the other, and which of them makes the finer level of hypercolumns."""
    layers = encoder.layers
    if isinstance(layers, Hypercolumns):
        steps: list[nn.Module] = []
        level = None
        for name, layer in layers.named_children():
            steps += _flattened(layer)
            if name == layers.level:
                level = len(steps) - 1
        return steps, level
    return _flattened(layers), None


def _flattened(module: nn.Module) -> list[nn.Module]:
    if type(module).forward is not nn.Sequential.forward:
        return [module]
    # not `children`, which leaves out the second of two places where the same module stands
    return [step for part in module._modules.values() if part is not None for step in _flattened(part)]


def _both(fine: Tensor, coarse: Tensor) -> Tensor:
    return torch.cat([fine, functional.interpolate(coarse, size=fine.shape[2:], mode="nearest-exact")], dim=1)
