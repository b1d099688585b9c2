"""Cross-validation: one manifest a fold, and the model that was trained without it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..config import Config
from ..errors import DataError
from ..network.bundle import Bundle
from ..progress import Progress
from .datasets import Study, check_trainable, read_manifest
from .manifest import image_path, read_rows, relative_cell, write_manifest
from .recipe import TrainingRun, finished_bundle, train_bundle
from .regions import NO_MARKS, MarkFiles
from .splitting import make_splits, patient_groups, split_manifest
from .trainer import LAST, EpochListener

FOLDS_FILE = "folds.csv"
CALIBRATION_SHARE = 0.125
"""Of the studies that are not held out: they choose the epoch, the calibration and the thresholds."""


@dataclass(frozen=True)
class Fold:
    """One fold.

    Attributes:
        number: From 0.
        manifest: Its own manifest: held out studies are in test, the others in train and val.
        folder: Of its training run.
    """

    number: int
    manifest: Path
    folder: Path

    def studies(self, split: str) -> list[Study]:
        """Studies of one split."""
        return [study for study in read_manifest(self.manifest) if study.split == split]


def prepare_folds(manifest: Path, folds: int, folder: Path, seed: int = 0) -> list[Fold]:
    """Write the manifests of all folds, or take those that an earlier call wrote.

    A column `fold` of the manifest is used; where there is none, folds are made (patients whole, sources and labels in
    proportion) and stored in `folder`.

    Args:
        manifest: Manifest.
        folds: How many.
        folder: Where they go.
        seed: Of the shuffling.

    Raises:
        DataError: The manifest cannot be read or divided, or it, or what lies in `folder`, has other folds.
    """
    stored = folder / FOLDS_FILE
    source = stored if stored.is_file() else manifest
    if all(study.fold is None for study in read_manifest(source)):
        folder.mkdir(parents=True, exist_ok=True)
        split_manifest(manifest, stored, folds=folds, seed=seed)
        source = stored
    columns, rows = read_rows(source)
    numbers = sorted({row["fold"] for row in rows if row.get("fold")}, key=int)
    if len(numbers) != folds:
        raise DataError(f"{source}: has {len(numbers)} folds, not {folds}. Ask for {len(numbers)}, or split it anew.")
    made = []
    for number in numbers:
        own = Fold(int(number), folder / f"fold-{number}" / "manifest.csv", folder / f"fold-{number}")
        if not own.manifest.is_file():
            own.folder.mkdir(parents=True, exist_ok=True)
            write_manifest(own.manifest, columns, _held_out(rows, number, source, own.folder, seed))
        check_trainable(read_manifest(own.manifest), own.manifest)  # of all folds, before hours are spent on one
        made.append(own)
    return made


def _held_out(rows: list[dict[str, str]], number: str, source: Path, folder: Path, seed: int) -> list[dict[str, str]]:
    """Rows of a fold's manifest, in their old order; those without a fold stay out."""
    taking_part = [row for row in rows if row.get("fold")]
    others = [row for row in taking_part if row["fold"] != number]
    splits = iter(
        make_splits(
            patient_groups([row["source"] for row in others], [row["patient"] for row in others]),
            [f"{row['source']} {row['label']}" for row in others],
            {"train": 1 - CALIBRATION_SHARE, "val": CALIBRATION_SHARE, "test": 0.0},
            seed,
        )
    )
    return [
        {
            **row,
            "image": relative_cell(image_path(source, row["image"]), folder),
            "split": "test" if row["fold"] == number else next(splits),
        }
        for row in taking_part
    ]


def train_fold(
    fold: Fold,
    config: Config,
    cache: Path,
    device: torch.device,
    progress: Progress,
    marks: MarkFiles = NO_MARKS,
    on_epoch: EpochListener = lambda _: None,
) -> Bundle:
    """The model of a fold: the finished one of an earlier call, or one that is trained, or trained on, now.

    Raises:
        UsageError: The folder holds a model of other settings.
    """
    last = fold.folder / LAST
    resume = last if last.is_file() else None
    run = TrainingRun(fold.manifest, fold.folder, config, f"fold-{fold.number}", cache, resume, marks=marks)
    bundle = finished_bundle(run) or train_bundle(run, device, progress=progress, on_epoch=on_epoch)
    assert bundle is not None  # there is one process only
    return bundle
