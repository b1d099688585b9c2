"""What heat maps cost over the bare forward pass, beside MONAI's and captum's Grad-CAM.

Run: python Testing/benchmarks/bench_activation.py [--output FILE.md] [--rounds N] [--only TEXT]

Contenders take turns within a round, so that whatever else the machine does hits all alike; the table holds the median
over the rounds of each contender's time divided by the bare forward's time in the same round. Bare forward and
MediScan run as the product does, in inference mode. MONAI and captum make the map of one finding, the most likely one,
and need a forward pass first to know which; MediScan makes the maps of all findings.

A further contender is one function: it takes a `Case` and returns what is timed. List it in `CONTENDERS`.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import captum
import monai
import numpy as np
import torch
from captum.attr import LayerGradCam
from monai.visualize import GradCAM
from torch import nn

from MediScanLib.network.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from MediScanLib.network.encoders import build_encoder
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.prediction.activation import class_activation_maps
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.record import ClinicalRecord

Timed = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One row of the table: a network and what it is asked."""

    backbone: str
    dims: int
    size: int
    batch: int
    fusion: str
    network: FusionNetwork
    image: torch.Tensor
    values: torch.Tensor
    observed: torch.Tensor

    @classmethod
    def make(cls, backbone: str, dims: int, size: int, batch: int, fusion: str) -> Case:
        torch.manual_seed(0)
        network = FusionNetwork(build_encoder(backbone, dims), fusion=fusion).eval()
        image = torch.randn(batch, 1, *[size] * dims)
        return cls(
            backbone, dims, size, batch, fusion, network, image, torch.randn(batch, 10), torch.rand(batch, 10) > 0.5
        )

    def with_own_network(self) -> Case:
        """For contenders that change the network they are given."""
        return Case(**{**self.__dict__, "network": copy.deepcopy(self.network)})


class _Logits(nn.Module):
    """Image in, logits out, as MONAI and captum want it."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.network = case, case.network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image, self.case.values, self.case.observed).logits


def bare(case: Case) -> Timed:
    """Encoder and heads, no maps."""

    def run() -> object:
        with torch.inference_mode():
            return case.network(case.image, case.values, case.observed)

    return run


def mediscan(case: Case) -> Timed:
    """Maps of all findings, logits and severity."""

    def run() -> object:
        with torch.inference_mode():
            features = case.network.features(case.image)
            return class_activation_maps(case.network, features, case.values, case.observed)

    return run


def mediscan_channels_last(case: Case) -> Timed:
    """The same with the encoder in the memory layout that it prefers."""
    case = case.with_own_network()
    case.network.to(memory_format=case.network.encoder.memory_format)
    return mediscan(case)


def monai_gradcam(case: Case) -> Timed:
    """Prediction and MONAI's map of the most likely finding, without its resizing and normalizing."""
    model = _Logits(case.with_own_network())
    gradcam = GradCAM(model, target_layers="network.encoder")

    def run() -> object:
        with torch.inference_mode():
            logits = model(case.image)
        return logits, gradcam.compute_map(case.image, class_idx=int(logits[0].argmax()))

    return run


def captum_gradcam(case: Case) -> Timed:
    """Prediction and captum's map of the most likely finding."""
    model = _Logits(case.with_own_network())
    gradcam = LayerGradCam(model, model.network.encoder)

    def run() -> object:
        with torch.inference_mode():
            logits = model(case.image)
        return logits, gradcam.attribute(case.image, target=logits.argmax(1), relu_attributions=True)

    return run


def whole_predictor(case: Case) -> Timed:
    """`Predictor` from a decoded image to a Prediction: a 512 x 512 picture, or a volume of 96 x 128 x 128."""
    case = case.with_own_network()
    shipped = load_bundle(DEFAULT_BUNDLE)
    card = shipped.card
    network = card.network.model_copy(
        update={"backbone": case.backbone, "spatial_dims": case.dims, "fusion": case.fusion, "weights": "none"}
    )
    size = (case.size,) * case.dims
    card = card.model_copy(
        update={"network": network, "input": card.input.model_copy(update={"size": size, "windows": {}})}
    )
    predictor = Predictor(Bundle(shipped.folder, card), case.network, torch.device("cpu"))
    shape = (1, 512, 512) if case.dims == 2 else (96, 128, 128)
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    studies = [(MedicalImage(pixels, (1.0, 1.0, 1.0)), ClinicalRecord(age_years=63, sex="M"))] * case.batch
    return lambda: predictor.predict_batch(studies)


BASELINE = "bare forward"
CONTENDERS: dict[str, Callable[[Case], Timed]] = {
    BASELINE: bare,
    "MediScan, all maps": mediscan,
    "the same, channels_last": mediscan_channels_last,
    "the whole Predictor": whole_predictor,
    "MONAI GradCAM, 1 map + prediction": monai_gradcam,
    "captum LayerGradCam, 1 map + prediction": captum_gradcam,
}

CASES = [
    (backbone, dims, size, batch, fusion)
    for fusion, backbones in {
        "gated": [
            ("efficientnet-lite0", 2, 224),
            ("resnet50", 2, 224),
            ("densenet121", 2, 224),
            ("resnet50", 3, 96),
            ("densenet121", 3, 96),
        ],
        "attention": [("efficientnet-lite0", 2, 224), ("resnet50", 2, 224), ("resnet50", 3, 96)],
    }.items()
    for backbone, dims, size in backbones
    for batch in (1, 8)
]


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    """Seconds of every contender, one number a round, after one round that does not count."""
    timed = {name: make(case) for name, make in CONTENDERS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for round_ in range(rounds + 1):
        for name, run in timed.items():
            start = time.perf_counter()
            run()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def row(case: Case, seconds: dict[str, list[float]]) -> str:
    base = seconds[BASELINE]
    cells = [case.backbone, f"{case.dims}D {case.size}", str(case.batch), case.fusion]
    cells.append(f"{statistics.median(base) * 1e3:.0f} ms")
    for name in list(CONTENDERS)[1:]:
        cells.append(f"{statistics.median(s / b for s, b in zip(seconds[name], base, strict=True)):.2f}x")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="cases whose name holds this text, such as 'lite0' or '3D'")
    arguments = parser.parse_args()

    head = ["network", "input", "batch", "fusion", *CONTENDERS]
    lines = [
        f"torch {torch.__version__}, MONAI {monai.__version__}, captum {captum.__version__}, "
        f"{torch.get_num_threads()} threads, {platform.machine()}; median of {arguments.rounds} interleaved rounds, "
        "as multiples of the bare forward.",
        "",
        "| " + " | ".join(head) + " |",
        "| " + " | ".join(["---"] * len(head)) + " |",
    ]
    print("\n".join(lines), flush=True)
    warnings.filterwarnings("ignore", "Full backward hook is firing")  # MONAI's, on every call
    for parameters in CASES:
        if arguments.only not in "{} {}D {} batch {} {}".format(*parameters):
            continue
        case = Case.make(*parameters)
        lines.append(row(case, measure(case, arguments.rounds)))
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
