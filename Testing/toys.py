"""Small networks whose answers are known beforehand."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from MediScanLib.config import InferenceConfig, ModelConfig
from MediScanLib.network.bundle import WEIGHTS_FILE, Bundle
from MediScanLib.network.card import Calibration, Card, FieldStatistics, Grade, InputSpec, SeverityScale, Threshold
from MediScanLib.network.encoders import Encoder
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.study.fields import FIELDS

LABELS = ["normal", "pneumonia", "covid", "fracture", "cancer"]


def make_card(spatial_dims: int = 2, size: tuple[int, ...] = (64, 64), **changes) -> Card:
    card = Card(
        name="toy",
        version="1",
        title="A toy",
        description="For tests.",
        labels=LABELS,
        network=ModelConfig(
            backbone="efficientnet-lite0" if spatial_dims == 2 else "resnet50",
            spatial_dims=spatial_dims,
            weights="none",
        ),
        input=InputSpec(size=size, percentiles=(0.5, 99.9), modalities=["CR", "CT"], body_parts=["CHEST"]),
        clinical={
            name: FieldStatistics(mean=50, std=20, known_fraction=0 if name == "heart_rate_per_min" else 0.5)
            for name in FIELDS
        },
        calibration=Calibration(scale=[1.0] * 5, shift=[0.0] * 5, fitted_on="nothing"),
        thresholds={label: Threshold(value=0.5, margin=0.02, operating_point="none") for label in LABELS},
        severity=SeverityScale(
            name="Brixia 0-18",
            maximum=18,
            grades=[Grade(name="none", start=0), Grade(name="severe", start=0.5)],
            findings=["pneumonia", "covid"],
        ),
        heat_map_scales=dict.fromkeys(LABELS, 1.0),
        weights_licence="none",
        files={WEIGHTS_FILE: "0" * 64},
    )
    return card.model_copy(update=changes)


class BrightnessNetwork(FusionNetwork):
    """Its only image feature is brightness, and only pneumonia likes it: the map shows where the image is bright."""

    def __init__(self, spatial_dims: int = 2, cell: int = 4) -> None:
        pool = nn.AvgPool2d(cell) if spatial_dims == 2 else nn.AvgPool3d(cell)
        encoder = Encoder(
            pool,
            backbone="brightness",
            spatial_dims=spatial_dims,
            in_channels=1,
            out_channels=1,
            stride=cell,
            input_mean=0.0,
            input_std=1.0,
        )
        super().__init__(encoder)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.fusion.gate.bias.fill_(20.0)  # wide open
            self.fusion.image_projection.weight.fill_(1.0)
            self.disease.weight[1, :256] = 1.0
            self.severity.weight[:, :256] = 0.01


def make_predictor(spatial_dims: int = 2, size: tuple[int, ...] = (64, 64), *, settings=None, **card) -> Predictor:
    bundle = Bundle(Path("toy"), make_card(spatial_dims, size, **card))
    return Predictor(bundle, BrightnessNetwork(spatial_dims), torch.device("cpu"), settings or InferenceConfig())


def make_random_predictor(fusion: str, spatial_dims: int = 2, *, settings=None, seed: int = 0, **card) -> Predictor:
    """A predictor whose answers are known to nobody, but to which image and clinical values both matter."""
    size = (32,) * spatial_dims
    torch.manual_seed(seed)
    convolution = (nn.Conv2d if spatial_dims == 2 else nn.Conv3d)(1, 12, kernel_size=8, stride=8)
    encoder = Encoder(
        convolution,
        backbone="random",
        spatial_dims=spatial_dims,
        in_channels=1,
        out_channels=12,
        stride=8,
        input_mean=0.0,
        input_std=1.0,
    )
    network = FusionNetwork(encoder, fusion=fusion, fusion_dim=16, attention_heads=4)
    with torch.no_grad():
        for part in (network.fusion, network.disease, network.severity):
            for parameter in part.parameters():
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
    bundle = Bundle(Path("toy"), make_card(spatial_dims, size, **card))
    return Predictor(bundle, network, torch.device("cpu"), settings or InferenceConfig())
