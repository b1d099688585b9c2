"""What a tried clinical value costs, as a share of a whole prediction of the same image in the same run.

python Testing/benchmarks/bench_what_if.py --output Testing/output/benchmark-what-if.md
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from MediScanLib.prediction.predictor import Predictor
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.phantom import make_phantom
from MediScanLib.study.record import ClinicalRecord

WARM, COLD = (
    ClinicalRecord(age_years=63, sex="F", temperature_c=value, spo2_percent=91, leukocytes_1e9_per_l=13.2)
    for value in (39.5, 36.5)
)


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def volume(slices: int) -> MedicalImage:
    """The phantom as every slice of a volume, a little brighter in each, so that no two are the same."""
    pixels = make_phantom().pixels
    return MedicalImage(np.concatenate([pixels + number for number in range(slices)]), spacing=(0.8, 0.8, 5.0))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file for the table (Markdown)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=24)
    arguments = parser.parse_args()
    predictor = Predictor.load(device="cpu")
    lines = [
        f"A second record on the same image as a share of a whole prediction, mediscan-general on "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}. Median of "
        f"{arguments.rounds} rounds.",
        "",
        "| image | share |",
        "| --- | --- |",
    ]
    for name, image in {"one image": make_phantom(), f"{arguments.slices} slices": volume(arguments.slices)}.items():
        predictor(image, WARM)  # the first call also wakes the libraries
        shares = []
        for number in range(arguments.rounds):
            changed = image.with_pixels(image.pixels + np.float32(number + 1))  # not what was seen before
            whole = seconds(lambda changed=changed: predictor(changed, WARM))  # type: ignore[misc]
            shares.append(seconds(lambda changed=changed: predictor(changed, COLD)) / whole)  # type: ignore[misc]
        lines.append(f"| {name} | {statistics.median(shares):.3f} |")
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
