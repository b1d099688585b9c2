"""Encoders: the published networks, in 2D and 3D, with the geometry that they claim."""

import pytest
import torch
from torch import nn

from MediScanLib.errors import ConfigError
from MediScanLib.network.encoders import build_encoder

PUBLISHED = {
    # parameters of the published network for three channels, of its classifier, channels and kernel of its first layer
    "resnet50": (25_557_032, 2048 * 1000 + 1000, 64 * 49),
    "densenet121": (7_978_856, 1024 * 1000 + 1000, 64 * 49),
    "efficientnet-b3": (12_233_232, 1536 * 1000 + 1000, 40 * 9),
    "efficientnet-lite0": (4_652_008, 1280 * 1000 + 1000, 32 * 9),
    "efficientnet-lite1": (5_416_680, 1280 * 1000 + 1000, 32 * 9),
    "efficientnet-lite2": (6_092_072, 1280 * 1000 + 1000, 32 * 9),
}
IN_3D = ["resnet50", "densenet121", "efficientnet-b3"]


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_parameters_are_those_of_the_published_network(backbone: str) -> None:
    whole, classifier, per_channel = PUBLISHED[backbone]
    for channels in (1, 3):
        encoder = build_encoder(backbone, in_channels=channels)
        count = sum(parameter.numel() for parameter in encoder.parameters())
        assert count == whole - classifier - (3 - channels) * per_channel


@pytest.mark.parametrize("backbone", PUBLISHED)
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 128), (224, 161)])
def test_feature_map_in_2d(backbone: str, size: tuple[int, int]) -> None:
    encoder = build_encoder(backbone).eval()
    with torch.inference_mode():
        features = encoder(torch.rand(2, 1, *size))
    assert features.shape[:2] == (2, encoder.out_channels)
    for cells, pixels in zip(features.shape[2:], size, strict=True):
        assert pixels // 32 <= cells <= -(-pixels // 32)
    assert encoder.stride == 32


@pytest.mark.parametrize("backbone", IN_3D)
def test_feature_map_in_3d(backbone: str) -> None:
    encoder = build_encoder(backbone, spatial_dims=3).eval()
    with torch.inference_mode():
        assert encoder(torch.rand(1, 1, 64, 32, 96)).shape == (1, encoder.out_channels, 2, 1, 3)
        assert encoder(torch.rand(1, 1, 33, 63, 65)).shape[:2] == (1, encoder.out_channels)


@pytest.mark.parametrize("dims", [2, 3])
def test_efficientnet_b3_pads_alike_on_both_sides(dims: int) -> None:
    encoder = build_encoder("efficientnet-b3", dims)
    for module in encoder.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            assert module.padding == tuple(size // 2 for size in module.kernel_size)
        assert not type(module).__name__.startswith("ConstantPad")


@pytest.mark.parametrize(("dims", "layout"), [(2, torch.channels_last), (3, torch.channels_last_3d)])
def test_memory_format_changes_speed_and_not_the_features(dims: int, layout: torch.memory_format) -> None:
    encoder = build_encoder("densenet121", dims).eval()
    assert encoder.memory_format is layout
    image = torch.rand(1, 1, *[64] * dims)
    with torch.inference_mode():
        before = encoder(image)
        after = encoder.to(memory_format=layout)(image)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("member", [0, 2])
def test_hypercolumns_average_to_both_levels(member: int) -> None:
    torch.manual_seed(0)
    name = f"efficientnet-lite{member}"
    both = build_encoder(name, hypercolumns=True).eval()
    plain = build_encoder(name).eval()
    plain.load_state_dict(both.state_dict())
    image = torch.rand(2, 1, 96, 128)
    with torch.no_grad():
        features, coarse = both(image), plain(image)
    assert features.shape == (2, both.out_channels, 6, 8)
    assert (both.stride, both.offset) == (16, 7.5)
    torch.testing.assert_close(features[:, -plain.out_channels :].mean((2, 3)), coarse.mean((2, 3)))
    with torch.no_grad():
        assert both(torch.rand(1, 1, 97, 75)).shape[1] == both.out_channels  # sizes that do not halve evenly
    with pytest.raises(ConfigError, match="hypercolumns: resnet50 has none"):
        build_encoder("resnet50", hypercolumns=True)


@pytest.mark.parametrize("member", [0, 2])
def test_with_a_gradient_lite_gives_the_same_features_and_the_gradient_of_the_plain_layers(member: int) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(f"efficientnet-lite{member}")
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    encoder.double().eval()
    image = torch.rand(2, 1, 65, 96, dtype=torch.double)
    with torch.no_grad():
        plain = encoder(image)
    torch.testing.assert_close(encoder(image), plain)
    encoder(image).square().mean().backward()
    quick = {name: parameter.grad.clone() for name, parameter in encoder.named_parameters()}
    encoder.zero_grad()
    blocks = [module for module in encoder.modules() if type(module).__name__ == "_ConvolutionNorm"]
    for block in blocks:
        block.forward = lambda x, block=block: nn.Sequential.forward(block, x)
    encoder(image).square().mean().backward()
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(quick[name], parameter.grad, msg=name)


def test_there_is_no_dropout_in_an_encoder() -> None:
    for backbone in PUBLISHED:
        for module in build_encoder(backbone).modules():
            assert not isinstance(module, nn.modules.dropout._DropoutNd) or module.p == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"backbone": "vgg16"}, "backbone.*'vgg16'.*resnet50"),
        ({"backbone": "efficientnet-lite0", "spatial_dims": 3}, "efficientnet-lite0 works in 2D, not in 3D"),
        ({"backbone": "resnet50", "spatial_dims": 1}, "resnet50 works in 2D and 3D, not in 1D"),
    ],
)
def test_errors(arguments: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_encoder(**arguments)
