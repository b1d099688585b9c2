"""Which weights learn."""

import pytest
import torch
from torch import nn

from MediScanLib.network.encoders import build_encoder
from MediScanLib.training.optimization import freeze


def trainable(encoder: nn.Module) -> set[str]:
    return {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("backbone", "dims", "stride", "last_frozen", "first_free"),
    [
        ("efficientnet-lite0", 2, 4, "layers.stage2.1.", "layers.stage3.0."),
        ("efficientnet-lite2", 2, 16, "layers.stage5.3.", "layers.stage6.0."),
        ("resnet50", 2, 8, "layers.layer2.3.", "layers.layer3.0."),
        ("densenet121", 3, 4, "layers.denseblock1.", "layers.transition1."),
        ("efficientnet-b3", 2, 4, "layers.blocks.1.", "layers.blocks.2."),
    ],
)
def test_layers_up_to_a_stride_are_frozen(backbone, dims, stride, last_frozen, first_free):
    encoder = build_encoder(backbone, dims)
    freeze(encoder, stride, depthwise=False)
    names = [name for name, _ in encoder.named_parameters()]
    free = trainable(encoder)
    border = min(i for i, name in enumerate(names) if name in free)
    assert names[border].startswith(first_free)
    assert names[border - 1].startswith(last_frozen)
    assert free == set(names[border:])
    assert encoder.training  # the probe leaves the mode alone


def test_nothing_is_frozen_by_default():
    encoder = build_encoder("efficientnet-lite0")
    freeze(encoder, 0, depthwise=False)
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def test_depthwise_convolutions_are_frozen_with_their_norms():
    encoder = build_encoder("efficientnet-lite0")
    freeze(encoder, 0, depthwise=True)
    free = trainable(encoder)
    assert all((".depthwise." in name) != (name in free) for name, _ in encoder.named_parameters())


def test_frozen_weights_have_no_gradient_and_the_others_do():
    encoder = build_encoder("efficientnet-lite0").eval()
    freeze(encoder, 4, depthwise=True)
    with torch.autocast("cpu", torch.bfloat16):
        features = encoder(torch.rand(2, 1, 64, 64))
    features.float().square().mean().backward()
    for name, parameter in encoder.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
