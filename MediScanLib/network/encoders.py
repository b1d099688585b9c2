"""Image encoders behind one signature: an image in, the last feature map before pooling out, in 2D and 3D."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ..errors import ConfigError
from . import efficientnet_lite, pretrained


class Encoder(nn.Module):
    """Convolutional network without its classifier.

    Attributes:
        backbone: Name of the published network.
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        out_channels: Channels of the feature map.
        stride: Input pixels from one cell of the feature map to the next, the same along every axis.
        offset: Input pixel on which the first cell of the feature map is centered, the same along every axis: cell i
            stands at pixel `offset + stride * i`.
        input_mean: Mean that the preprocessing subtracts from an image of 0 to 1.
        input_std: Deviation by which it then divides.
    """

    def __init__(
        self,
        layers: nn.Module,
        *,
        backbone: str,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        stride: int,
        input_mean: float,
        input_std: float,
    ) -> None:
        super().__init__()
        self.layers = layers
        self.backbone = backbone
        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride
        self.input_mean = input_mean
        self.input_std = input_std

    @property
    def offset(self) -> float:
        """Center of the first cell, half a pixel before the middle of its `stride` pixels.

        The paddings of the strided layers put the receptive fields elsewhere, but a trained network undoes that: it
        has seen its images mirrored, and so treats both sides alike (docs/decisions/0004).
        """
        return (self.stride - 1) / 2

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory layout in which this encoder runs fastest, for `network.to(memory_format=...)`."""
        return torch.channels_last if self.spatial_dims == 2 else torch.channels_last_3d

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Feature map (B, out_channels, *spatial / stride) of images (B, in_channels, *spatial)."""
        features: torch.Tensor = self.layers(image)
        return features


class Hypercolumns(nn.Sequential):
    """Layers whose output stands side by side with that of an earlier, finer level, in the cells of the finer one.

    A coarse cell is repeated for each fine cell it covers, so that the average over the map is the average over each
    level.

    Args:
        layers: Sequential layers.
        level: Name of the layer at whose output the finer level is taken.
    """

    def __init__(self, layers: nn.Module, level: str) -> None:
        super().__init__(OrderedDict(layers.named_children()))
        self.level = level

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Both levels of images (B, in_channels, *spatial): (B, fine + coarse channels, *cells of the finer)."""
        fine = coarse = image
        for name, layer in self.named_children():
            coarse = layer(coarse)
            if name == self.level:
                fine = coarse
        return torch.cat([fine, functional.interpolate(coarse, size=fine.shape[2:], mode="nearest-exact")], dim=1)


class _Backbone(NamedTuple):
    build: Callable[[int, int], nn.Module]  # (spatial_dims, in_channels) -> layers
    out_channels: int
    spatial_dims: tuple[int, ...] = (2, 3)
    input_mean: float = pretrained.GRAY_MEAN
    input_std: float = pretrained.GRAY_STD
    fine: efficientnet_lite.Level | None = None  # the last layer of stride 16


def build_encoder(
    backbone: str,
    spatial_dims: int = 2,
    in_channels: int = 1,
    weights: str = "none",
    *,
    hypercolumns: bool = False,
) -> Encoder:
    """Make an encoder.

    Args:
        backbone: "resnet50" (He et al. 2016), "densenet121" (Huang et al. 2017), "efficientnet-b3" (Tan and Le 2019)
            or "efficientnet-lite0", "-lite1" or "-lite2" (2D only).
        spatial_dims: 2 or 3.
        in_channels: Channels of the image; 1 for ImageNet weights.
        weights: "imagenet", "none" for random ones, or the path of a state dict.
        hypercolumns: Whether the feature map has the cells of stride 16 with the channels of strides 16 and 32; after
            Hariharan et al., "Hypercolumns for Object Segmentation and Fine-grained Localization" (CVPR 2015).

    Raises:
        ConfigError: There is no such backbone in these dimensions, or no such weights; see `load_weights`.
    """
    if backbone not in _BACKBONES:
        raise ConfigError(f"backbone: there is no {backbone!r}; allowed: {', '.join(_BACKBONES)}.")
    entry = _BACKBONES[backbone]
    if spatial_dims not in entry.spatial_dims:
        allowed = " and ".join(f"{dims}D" for dims in entry.spatial_dims)
        raise ConfigError(f"spatial_dims: {backbone} works in {allowed}, not in {spatial_dims}D.")
    layers, channels = entry.build(spatial_dims, in_channels), entry.out_channels
    if hypercolumns:
        if entry.fine is None:
            able = ", ".join(name for name, other in _BACKBONES.items() if other.fine)
            raise ConfigError(f"hypercolumns: {backbone} has none; allowed with {able}.")
        layers, channels = Hypercolumns(layers, entry.fine.name), channels + entry.fine.channels
    encoder = Encoder(
        layers,
        backbone=backbone,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=channels,
        stride=16 if hypercolumns else 32,
        input_mean=entry.input_mean,
        input_std=entry.input_std,
    )
    pretrained.load_weights(encoder, weights)
    return encoder


# MONAI takes seconds to import and is not needed to run efficientnet-lite0: it is imported where it is used.


def _resnet50(spatial_dims: int, in_channels: int) -> nn.Module:
    from monai.networks.nets import resnet50

    # MONAI's defaults are those of a video network: stride 1 in the first layer and biased shortcuts.
    network = resnet50(
        spatial_dims=spatial_dims,
        n_input_channels=in_channels,
        conv1_t_stride=2,
        bias_downsample=False,
        feed_forward=False,
    )
    names = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return nn.Sequential(OrderedDict((name, getattr(network, name)) for name in names))


def _densenet121(spatial_dims: int, in_channels: int) -> nn.Module:
    from monai.networks.nets import DenseNet121

    layers = DenseNet121(spatial_dims=spatial_dims, in_channels=in_channels, out_channels=1).features
    layers.add_module("relu5", nn.ReLU(inplace=True))  # MONAI counts the last activation to the classifier
    return layers


def _efficientnet_b3(spatial_dims: int, in_channels: int) -> nn.Module:
    from monai.networks.nets import EfficientNetBN

    network = EfficientNetBN(
        "efficientnet-b3",
        pretrained=False,
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        norm=("batch", {"eps": 1e-5, "momentum": 0.1}),  # as torchvision's, whose weights are loaded
    )
    for module in network.modules():
        # MONAI pads for images of 300 pixels; symmetric padding fits every size and torchvision's weights.
        for name, padder in list(module.named_children()):
            if name.endswith("_padding"):
                convolution = getattr(module, name.removesuffix("_padding"))
                if isinstance(convolution, (nn.Conv2d, nn.Conv3d)):
                    convolution.padding = tuple(size // 2 for size in convolution.kernel_size)
                if not isinstance(padder, nn.Identity):
                    setattr(module, name, nn.Identity())
            elif name == "_swish":
                setattr(module, name, nn.SiLU(inplace=True))  # the same function, one pass over memory less
    return nn.Sequential(
        OrderedDict(
            conv_stem=network._conv_stem,
            norm_stem=network._bn0,
            act_stem=network._swish,
            blocks=network._blocks,
            conv_head=network._conv_head,
            norm_head=network._bn1,
            act_head=network._swish,
        )
    )


def _efficientnet_lite(member: int) -> _Backbone:
    def build(_spatial_dims: int, in_channels: int) -> nn.Module:
        return efficientnet_lite.efficientnet_lite_features(in_channels, member=member)

    return _Backbone(
        build,
        out_channels=efficientnet_lite.OUT_CHANNELS,
        spatial_dims=(2,),
        input_mean=efficientnet_lite.INPUT_MEAN,
        input_std=efficientnet_lite.INPUT_STD,
        fine=efficientnet_lite.last_of_stride_16(member),
    )


_BACKBONES = {
    "resnet50": _Backbone(_resnet50, out_channels=2048),
    "densenet121": _Backbone(_densenet121, out_channels=1024),
    "efficientnet-b3": _Backbone(_efficientnet_b3, out_channels=1536),
    **{f"efficientnet-lite{member}": _efficientnet_lite(member) for member in efficientnet_lite.SCALES},
}
