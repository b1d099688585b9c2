"""PneumoniaMNIST by MediScan's own training: accuracy and AUC beside the published end-to-end rows.

Run: python Testing/benchmarks/bench_medmnist.py --data pneumoniamnist.npz --output FOLDER

The 28 x 28 images of the standard split (4708 train, 524 val, 624 test) are written as PNG files with a manifest, and
go the way of every other data set: the same preparation, network, trainer and choice of the epoch on val. The test
split is asked once, at the end. Accuracy counts the likelier of the two labels, as the published figures do.
"""

from __future__ import annotations

import argparse
import csv
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score

from MediScanLib.config import Config, parse_config
from MediScanLib.errors import DataError
from MediScanLib.prediction.devices import resolve_device
from MediScanLib.progress import CallbackProgress
from MediScanLib.training.answering import Split, answer_split
from MediScanLib.training.datasets import LABELS, read_manifest
from MediScanLib.training.loading import PreparedImages
from MediScanLib.training.recipe import TrainingRun, train_bundle

PUBLISHED = (
    ("ResNet-18", 83.1, 95.0),
    ("DenseNet-121", 83.6, 96.1),
    ("VGG16", 84.8, 97.0),
)
"""(network, accuracy %, AUC %) end to end at 28 x 28: Doerrich et al., the MedMNIST+ benchmark."""

CLASSES = ("normal", "pneumonia")


def recipe(size: int, epochs: int, seed: int) -> Config:
    """A few epochs over the enlarged images, most of the encoder learning."""
    return parse_config(
        {
            "training": {
                "input_size": size,
                "epochs": epochs,
                "warmup_epochs": 1,
                "patience": epochs,
                "encoder_rate": 0.2,
                "frozen_depthwise": True,
                "average_decay": 0.99,
                "weight_decay": 0.02,
                "seed": seed,
            }
        }
    )


def write_images(arrays: Path, folder: Path) -> Path:
    """The images as PNG files, and their manifest.

    Raises:
        DataError: The file is not PneumoniaMNIST.
    """
    try:
        with np.load(arrays, allow_pickle=False) as stored:
            parts = {s: (stored[f"{s}_images"], stored[f"{s}_labels"].reshape(-1)) for s in ("train", "val", "test")}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{arrays}: is not pneumoniamnist.npz of MedMNIST ({error}).") from error
    manifest = folder / "studies.csv"
    folder.mkdir(parents=True, exist_ok=True)
    with manifest.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("image", "source", "patient", "split", "modality", "body_part", "label"))
        for split, (images, labels) in parts.items():
            for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
                name = f"{split}-{number:04d}.png"
                if not (folder / name).is_file():
                    Image.fromarray(pixels).save(folder / name)
                # without case numbers, each image stands for a patient
                writer.writerow((name, "pneumoniamnist", name, split, "DX", "CHEST", CLASSES[int(label)]))
    return manifest


def measure(manifest: Path, output: Path, config: Config, device: torch.device) -> tuple[float, float]:
    """Train, and ask about the test split once: (accuracy, AUC)."""
    cache = output / "cache"
    run = TrainingRun(manifest, output, config, "pneumoniamnist", cache)
    progress = CallbackProgress(lambda *_: None)
    bundle = train_bundle(run, device, progress=progress, on_epoch=lambda row: print(_line(row), flush=True))
    assert bundle is not None  # there is one process only
    studies = [study for study in read_manifest(manifest) if study.split == "test"]
    images = PreparedImages(studies, bundle.card.input, cache)
    split = Split.of(studies, images, dict(bundle.card.clinical))
    logits = answer_split(bundle.load_network().to(device), split, bundle.card.input, device).fused.logits
    scores = torch.softmax(logits[:, [LABELS.index(name) for name in CLASSES]], dim=1)[:, 1].numpy()
    truth = np.array([study.label == "pneumonia" for study in studies])
    return float(((scores >= 0.5) == truth).mean()), float(roc_auc_score(truth, scores))


def _line(row: object) -> str:
    return " ".join(f"{key} {value:.4g}" for key, value in dict(row).items())  # type: ignore[call-overload]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="pneumoniamnist.npz")
    parser.add_argument("--output", type=Path, required=True, help="folder for images, checkpoints and bundle")
    parser.add_argument("--size", type=int, default=112, help="pixels to which the 28 are enlarged")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    manifest = write_images(arguments.data, arguments.output / "images")
    config = recipe(arguments.size, arguments.epochs, arguments.seed)
    accuracy, auc = measure(manifest, arguments.output, config, resolve_device(arguments.device))
    print("\n| network | accuracy % | AUC % |\n| --- | --- | --- |")
    for name, published_accuracy, published_auc in PUBLISHED:
        print(f"| {name} (published) | {published_accuracy} | {published_auc} |")
    print(f"| {config.model.backbone}, MediScan | {100 * accuracy:.1f} | {100 * auc:.1f} |")


if __name__ == "__main__":
    main()
