"""EfficientNet-Lite0 to 2: small 2D networks without squeeze-and-excitation whose ImageNet weights install from pip.

Architecture: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (ICML 2019), in
the Lite variant that TensorFlow published in 2020: ReLU6 instead of swish, no squeeze-and-excitation, stem and head
not scaled.
"""

from __future__ import annotations

import math
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


class Scale(NamedTuple):
    """Compound scaling of one member of the family: factors of the channels and of the blocks of a stage."""

    width: float
    depth: float


SCALES = {0: Scale(1.0, 1.0), 1: Scale(1.0, 1.1), 2: Scale(1.1, 1.2)}


class Level(NamedTuple):
    """A layer whose output can be taken, and its channels."""

    name: str
    channels: int


def last_of_stride_16(member: int) -> Level:
    """The last layer whose cells stand 16 pixels apart."""
    return Level("stage5", _scaled(_STAGES[4].out_channels, SCALES[member].width))


def efficientnet_lite_features(in_channels: int = 1, *, member: int = 0) -> nn.Sequential:
    """The convolutional part: (B, in_channels, H, W) -> (B, 1280, H / 32, W / 32), with random weights.

    Args:
        in_channels: Channels of the image.
        member: Key of `SCALES`.
    """
    layers: list[tuple[str, nn.Module]] = [("stem", _convolution(in_channels, 32, kernel_size=3, stride=2))]
    channels = 32
    for number, stage in enumerate(_STAGES, start=1):
        # the Lite variant leaves the number of blocks of the first and the last stage alone
        depth = 1.0 if number in (1, len(_STAGES)) else SCALES[member].depth
        out_channels = _scaled(stage.out_channels, SCALES[member].width)
        blocks = []
        for index in range(math.ceil(stage.blocks * depth)):
            stride = stage.stride if index == 0 else 1
            blocks.append(_InvertedResidual(channels, out_channels, stage.kernel_size, stride, stage.expansion))
            channels = out_channels
        layers.append((f"stage{number}", nn.Sequential(*blocks)))
    layers.append(("head", _convolution(channels, OUT_CHANNELS, kernel_size=1)))
    network = nn.Sequential(OrderedDict(layers))
    for module in network.modules():
        if isinstance(
            module, nn.Conv2d
        ):  # He et al. 2015; torch's default lets the signal of a deep ReLU network fade
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    return network


def _scaled(channels: int, width: float) -> int:
    """Nearest multiple of 8 that is no more than a tenth too small, as in the paper's own code."""
    nearest = max(8, int(channels * width + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels * width else nearest


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


class _ConvolutionNorm(nn.Sequential):
    """Padding, convolution, batch norm and activation.

    Where a gradient is wanted and the norm keeps its statistics, the norm is multiplied into the kernel: the same
    result from one pass over the image less each way, which saves a fifth of a training step on a CPU.
    """

    pad: nn.Module
    conv: nn.Conv2d
    norm: nn.BatchNorm2d
    act: nn.Module

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.norm.training or not torch.is_grad_enabled():
            output: torch.Tensor = super().forward(input)
            return output
        mean, variance = self.norm.running_mean, self.norm.running_var
        assert mean is not None and variance is not None
        scale = self.norm.weight * torch.rsqrt(variance + self.norm.eps)
        kernel, bias = self.conv.weight * scale.reshape(-1, 1, 1, 1), self.norm.bias - mean * scale
        padded = self.pad(input) if "pad" in self._modules else input
        output = self.conv._conv_forward(padded, kernel, bias)
        return self.act(output) if "act" in self._modules else output


class _StridedDepthwise(nn.Conv2d):
    """Single precision under autocast on a CPU: in bfloat16 its gradient takes ten times as long, and not less."""

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if input.device.type != "cpu" or input.dtype != torch.bfloat16:
            return super()._conv_forward(input, weight, bias)
        with torch.autocast("cpu", enabled=False):
            return super()._conv_forward(input.float(), weight.float(), bias).to(input.dtype)


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
    kind = _StridedDepthwise if stride == 2 and groups > 1 else nn.Conv2d
    layers += [
        ("conv", kind(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False)),
        ("norm", nn.BatchNorm2d(out_channels, eps=1e-3, momentum=0.01)),
    ]
    if activation:
        layers.append(("act", nn.ReLU6(inplace=True)))
    return _ConvolutionNorm(OrderedDict(layers))
