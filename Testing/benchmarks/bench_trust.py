"""What everything that tells how far to trust a prediction costs, as a share of the bare forward pass.

One radiograph through mediscan-general at its own size, all in one run, interleaved. The bare forward is the network
on the prepared tensor: encoder and heads. Preparing the image and carrying the maps to its grid are no part of either.

python Testing/benchmarks/bench_trust.py --output Testing/output/benchmark-trust.md
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from MediScanLib.config import InferenceConfig
from MediScanLib.prediction.activation import class_activation_maps
from MediScanLib.prediction.attribution import attribute, seen_by_head
from MediScanLib.prediction.certainty import draw, intervals, prediction_sets, uncertainty
from MediScanLib.prediction.modalities import modality_shares
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.preprocessing import prepare_clinical, prepare_slices
from MediScanLib.study.phantom import make_phantom
from MediScanLib.study.record import ClinicalRecord

RECORD = ClinicalRecord(
    age_years=63,
    sex="F",
    temperature_c=38.9,
    spo2_percent=91,
    leukocytes_1e9_per_l=13.2,
    neutrophils_1e9_per_l=10.1,
    lymphocytes_1e9_per_l=0.9,
    crp_mg_per_l=88,
)
"""Every value that the shipped model learned: the most coalitions there can be."""


def medians(parts: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each part; rounds go over all parts, so that a slow moment meets them all."""
    for part in parts.values():
        part()  # the first call also wakes the libraries
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            started = time.perf_counter()
            part()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file for the table (Markdown)")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    predictor = Predictor.load(device="cpu")
    network, card = predictor.network, predictor.bundle.card
    tensor = prepare_slices(make_phantom(), card.input, (0,)).tensor
    values, known = prepare_clinical([RECORD], card)
    features = network.features(tensor)
    seen, count = seen_by_head(network, features), InferenceConfig().dropout_samples
    output = predictor._run(tensor, RECORD)
    assert output.drawn is not None
    probabilities, drawn = output.probabilities[0], output.drawn[0]

    def full() -> None:
        answered = predictor._run(tensor, RECORD)
        predictor._evidence(answered, RECORD, (0,))
        assert answered.drawn is not None
        uncertainty(answered.drawn[0], card.epistemic)
        intervals(answered.drawn[0])
        prediction_sets(answered.probabilities[0], card)

    def certainty() -> None:
        uncertainty(drawn, card.epistemic)
        intervals(drawn)
        prediction_sets(probabilities, card)

    far, cases = network.novelty, predictor._cases
    parts: dict[str, Callable[[], object]] = {
        "bare forward": lambda: network(tensor, values, known),
        "everything": full,
        "maps of all findings": lambda: class_activation_maps(network, features, values, known),
        f"{count} dropout samples": lambda: draw(network, features, values, known, card.calibration, count),
        "uncertainty, intervals, sets": certainty,
        "novelty": lambda: far(seen) if far is not None else None,
        f"Shapley values of {int(known.sum())} clinical values": lambda: attribute(
            network, seen, values[0], known[0], card.calibration, probabilities
        ),
        "image and record": lambda: modality_shares(network, seen, values[0], known[0], card, probabilities),
    }
    found = medians(parts, arguments.rounds)
    bare = found["bare forward"]
    lines = [
        f"mediscan-general {card.version}, one image of {' x '.join(map(str, card.input.size))}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}. Median of "
        f'{arguments.rounds} rounds. {len(cases)} similar cases are searched within "everything".',
        "",
        "| part | share of the bare forward |",
        "| --- | --- |",
        *(f"| {name} | {seconds / bare:.3f} |" for name, seconds in found.items()),
    ]
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
