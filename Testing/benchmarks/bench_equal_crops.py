"""Fractures in bone_eeeh with the size of the crop held equal.

Run: python Testing/benchmarks/bench_equal_crops.py --folds build/runs/folds --output FILE.md

Fractured legs of bone_eeeh are tighter crops than whole ones: the size of the picture alone tells them apart. Here
every normal image is cut to the original size of a fractured one, drawn at random, at a random place; a side that is
shorter already stays as it is. Sizes then say little, and the image of a whole bone is as narrow as that of a broken
one. Each image is asked of the model of a cross-validation (`mediscan evaluate --folds`) that has not seen its
patient, as it is and cut in several ways; the AUC is the mean over these. Images of fractures stay whole.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.metrics import roc_auc_score

from MediScanLib.config import InferenceConfig
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.study.reading import read_image
from MediScanLib.training.datasets import read_manifest
from MediScanLib.training.evaluating.bootstrap import intervals
from MediScanLib.training.manifest import read_rows

SOURCE, FINDING = "bone_eeeh", "fracture"
CUTS = 5
"""Random sizes and places for each normal image."""

FloatArray = npt.NDArray[np.float64]


def cut_images(folds: Sequence[Path], folder: Path, seed: int = 0) -> list[dict[str, object]]:
    """Held-out images of the source with the probability of a fracture, whole and after each cut.

    Returns:
        By image: patient, truth, whole and cuts (probability, and area in original pixels).
    """
    rng = np.random.default_rng(seed)
    found: list[dict[str, object]] = []
    for fold in folds:
        _, rows = read_rows(fold / "manifest.csv")
        sizes = [(int(row["original_width"] or 0), int(row["original_height"] or 0)) for row in rows]
        studies = [s for s in read_manifest(fold / "manifest.csv") if s.source == SOURCE]
        broken = [sizes[s.row - 2] for s in studies if s.label == FINDING]
        predictor = Predictor.load(fold / fold.name, "auto", InferenceConfig(explainability=False))
        for study in (s for s in studies if s.split == "test"):
            width, height = sizes[study.row - 2]
            whole = predictor(read_image(study.image), study.record).probabilities[FINDING]
            cuts = [(whole, width * height)] * CUTS
            if study.label != FINDING:
                cuts = []
                for number in range(CUTS):
                    wanted = broken[rng.integers(len(broken))]
                    to = min(width, wanted[0]), min(height, wanted[1])
                    path = folder / f"{fold.name}-{study.row}-{number}.png"
                    _cut(study.image, (width, height), to, rng).save(path)
                    asked = predictor(read_image(path), study.record)
                    cuts.append((asked.probabilities[FINDING], to[0] * to[1]))
            found.append(
                {
                    "patient": study.patient,
                    "truth": study.label == FINDING,
                    "whole": (whole, width * height),
                    "cuts": cuts,
                }
            )
    return found


def _cut(path: Path, size: tuple[int, int], to: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """A window of `to` of `size` original pixels at a random place, in the pixels of the file."""
    with Image.open(path) as picture:
        across, down = (max(1, round(n * m / o)) for n, m, o in zip(to, picture.size, size, strict=True))
        left, top = int(rng.integers(picture.width - across + 1)), int(rng.integers(picture.height - down + 1))
        return picture.crop((left, top, left + across, top + down))


def table(images: Sequence[dict[str, object]]) -> str:
    """Markdown: AUC of the network and of the area alone, whole and cut."""
    truth = np.array([image["truth"] for image in images])
    whole = np.array([image["whole"] for image in images], dtype=np.float64)[:, None]
    cuts = np.array([image["cuts"] for image in images], dtype=np.float64)

    def area(rows: npt.NDArray[np.int64], values: FloatArray) -> float:
        each = [max(a, 1 - a) for a in (roc_auc_score(truth[rows], column) for column in values[rows].T)]
        return float(np.mean(each))

    def auc(rows: npt.NDArray[np.int64], values: FloatArray) -> float:
        return float(np.mean([roc_auc_score(truth[rows], column) for column in values[rows].T]))

    figures = intervals(
        lambda rows: {
            "network, as it is": auc(rows, whole[..., 0]),
            "network, equal crops": auc(rows, cuts[..., 0]),
            "area alone, as it is": area(rows, whole[..., 1]),
            "area alone, equal crops": area(rows, cuts[..., 1]),
        },
        [str(image["patient"]) for image in images],
    )
    lines = [f"{len(images)} images, {int(truth.sum())} with a fracture.", "", "| AUC | |", "| --- | --- |"]
    lines += [f"| {name} | {f.value:.3f} ({f.low:.3f} to {f.high:.3f}) |" for name, f in figures.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=Path, required=True, help="output of mediscan evaluate --folds")
    parser.add_argument("--output", type=Path, required=True, help="Markdown file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = table(cut_images(sorted(arguments.folds.glob("fold-*")), Path(folder)))
    arguments.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
