"""EfficientNet-Lite0: a small 2D network without squeeze-and-excitation whose ImageNet weights install from pip.

Architecture: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019), in
the Lite variant that TensorFlow published in 2020: ReLU6 instead of swish, no squeeze-and-excitation, stem and head
not scaled.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import nn

OUT_CHANNELS = 1280
INPUT_MEAN = 127 / 255
INPUT_STD = 128 / 255
"""The published weights expect (value - 127) / 128 for values of 0 to 255, the same in all channels."""


class _Stage(NamedTuple):
    blocks: int
    kernel_size: int
    stride: int
    expansion: int
    out_channels: int


_STAGES = (
    _Stage(1, 3, 1, 1, 16),
    _Stage(2, 3, 2, 6, 24),
    _Stage(2, 5, 2, 6, 40),
    _Stage(3, 3, 2, 6, 80),
    _Stage(3, 5, 1, 6, 112),
    _Stage(4, 5, 2, 6, 192),
    _Stage(1, 3, 1, 6, 320),
)


def efficientnet_lite0_features(in_channels: int = 1) -> nn.Sequential:
    """The convolutional part: (B, in_channels, H, W) -> (B, 1280, H / 32, W / 32), with random weights."""
    layers: list[tuple[str, nn.Module]] = [("stem", _convolution(in_channels, 32, kernel_size=3, stride=2))]
    channels = 32
    for number, stage in enumerate(_STAGES, start=1):
        blocks = []
        for index in range(stage.blocks):
            stride = stage.stride if index == 0 else 1
            blocks.append(_InvertedResidual(channels, stage.out_channels, stage.kernel_size, stride, stage.expansion))
            channels = stage.out_channels
        layers.append((f"stage{number}", nn.Sequential(*blocks)))
    layers.append(("head", _convolution(channels, OUT_CHANNELS, kernel_size=1)))
    network = nn.Sequential(OrderedDict(layers))
    for module in network.modules():
        if isinstance(
            module, nn.Conv2d
        ):  # He et al. 2015; torch's default lets the signal of a deep ReLU network fade
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


class _InvertedResidual(nn.Module):
    """Expansion, depthwise convolution and linear projection (Sandler et al., "MobileNetV2", CVPR 2018)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        layers = [] if expansion == 1 else [("expand", _convolution(in_channels, hidden, kernel_size=1))]
        layers += [
            ("depthwise", _convolution(hidden, hidden, kernel_size=kernel_size, stride=stride, groups=hidden)),
            ("project", _convolution(hidden, out_channels, kernel_size=1, activation=False)),
        ]
        self.layers = nn.Sequential(OrderedDict(layers))
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def _convolution(
    in_channels: int,
    out_channels: int,
    *,
    kernel_size: int,
    stride: int = 1,
    groups: int = 1,
    activation: bool = True,
) -> nn.Sequential:
    layers: list[tuple[str, nn.Module]] = []
    padding = kernel_size // 2
    if (
        stride == 2
    ):  # TensorFlow's "SAME" for even sizes: one row and column less at the top left than at the bottom right
        layers.append(("pad", nn.ZeroPad2d((padding - 1, padding, padding - 1, padding))))
        padding = 0
    layers += [
        ("conv", nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)),
        ("norm", nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)),
    ]
    if activation:
        layers.append(("act", nn.ReLU6(inplace=True)))
    return nn.Sequential(OrderedDict(layers))
