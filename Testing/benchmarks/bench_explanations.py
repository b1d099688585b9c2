"""What each way to explain an image costs, as a multiple of one bare forward pass of the same study.

Run: python Testing/benchmarks/bench_explanations.py [--output FILE.md] [--rounds N] [--only TEXT]

Two models: the shipped one in 2D at its own input size, and a 3D DenseNet-121 with random weights on a small volume.
One finding is explained, and all five. The multiple is `Explanation.relative_cost`, for which every call times its own
bare forward pass; the table holds the median over the rounds, in which methods take turns. The last column is the test
whether the model leans on what the map shows, by the passes through the network that it takes.
"""

from __future__ import annotations

import argparse
import platform
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from MediScanLib.network.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from MediScanLib.network.encoders import build_encoder
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.prediction.explanations import METHODS, explain, faithfulness
from MediScanLib.prediction.explanations.clock import Clock
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.progress import CallbackProgress
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.phantom import make_phantom


def shipped() -> Predictor:
    """The model that comes with MediScan."""
    return Predictor.load(DEFAULT_BUNDLE, "cpu")


def small_volume_model(size: int) -> Predictor:
    """A 3D network; its weights are random, which costs as much."""
    torch.manual_seed(0)
    bundle = load_bundle(DEFAULT_BUNDLE)
    network = FusionNetwork(build_encoder("densenet121", 3))
    model = bundle.card.network.model_copy(update={"backbone": "densenet121", "spatial_dims": 3, "weights": "none"})
    spec = bundle.card.input.model_copy(update={"size": (size,) * 3, "windows": {}})
    card = bundle.card.model_copy(update={"network": model, "input": spec})
    return Predictor(Bundle(bundle.folder, card), network, torch.device("cpu"))


def row(predictor: Predictor, image: MedicalImage, rounds: int) -> list[str]:
    """Cells of the table: every method with one finding and with all, and the test of the first method's map."""
    labels = predictor.bundle.card.labels
    costs: dict[tuple[str, bool], list[float]] = {}
    for number in range(rounds + 1):
        for method in METHODS:
            for everything in (False, True):
                cost = explain(
                    predictor, image, method=method, findings=None if everything else labels[1:2]
                ).relative_cost
                if number:  # the first call also wakes the libraries
                    costs.setdefault((method, everything), []).append(cost)
    cells = [
        f"{statistics.median(costs[method, False]):.3g}x / {statistics.median(costs[method, True]):.3g}x"
        for method in METHODS
    ]
    return [*cells, faithfulness_cost(predictor, image)]


def faithfulness_cost(predictor: Predictor, image: MedicalImage) -> str:
    """Passes that `faithfulness` takes, and its time as a multiple of a bare forward pass."""
    label = predictor.bundle.card.labels[1]
    found = explain(predictor, image, findings=[label])
    flat = replace(found, maps=replace(found.maps, values=np.ones_like(found.maps.values)))  # any map will do
    clock = Clock(predictor.device)
    passes: list[int] = []
    with clock.on("test"):
        faithfulness(
            predictor,
            image,
            None,
            flat,
            label,
            progress=CallbackProgress(lambda stage, done, total: passes.append(total)),
        )
    bare = statistics.median(explain(predictor, image, findings=[label]).seconds for _ in range(5))
    return f"{passes[-1]} passes, {clock.spent('test') / bare:.0f}x"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="models whose name holds this text, such as '2D'")
    parser.add_argument("--size", type=int, default=64, help="sides of the small volume")
    arguments = parser.parse_args()
    side = shipped().bundle.card.input.size[0]
    rng = np.random.default_rng(0)
    volume = MedicalImage(rng.random((arguments.size,) * 3, dtype=np.float32), (1.0, 1.0, 1.0))
    cases = {
        f"mediscan-general, 2D {side}": (shipped, make_phantom()),
        f"densenet121, 3D {arguments.size}": (lambda: small_volume_model(arguments.size), volume),
    }
    head = ["model", *METHODS, "faithfulness"]
    lines = [
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}; median of "
        f"{arguments.rounds} rounds, as multiples of the bare forward pass: one finding / all five.",
        "",
        "| " + " | ".join(head) + " |",
        "| " + " | ".join(["---"] * len(head)) + " |",
    ]
    print("\n".join(lines), flush=True)
    for name, (make, image) in cases.items():
        if arguments.only not in name:
            continue
        lines.append("| " + " | ".join([name, *row(make(), image, arguments.rounds)]) + " |")
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
