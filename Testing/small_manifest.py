"""Small studies whose label can be seen: pneumonia is a bright blob on one side, normal is none."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import SimpleITK
from PIL import Image
from scipy.ndimage import gaussian_filter

from MediScanLib.config import Config, parse_config

COLUMNS = ["image", "source", "licence", "patient", "split", "modality", "body_part", "label", "age_years", "sex"]
COLUMNS += ["crp_mg_per_l", "brixia_senior", "brixia_junior"]


def write_manifest(folder: Path, counts: dict[str, int], *, size: int = 48, dims: int = 2, seed: int = 0) -> Path:
    """A manifest of made images: `counts` by split, from two sources, half of them with a blob."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, count in counts.items():
        for number in range(count):
            ill = number % 2 == 1
            pixels = rng.normal(100, 12, (size,) * dims)
            if ill:
                grid = np.meshgrid(*[np.arange(size)] * dims, indexing="ij")
                center = rng.uniform(0.3 * size, 0.7 * size, dims)
                far = sum((axis - c) ** 2 for axis, c in zip(grid, center, strict=True))
                pixels += 110 * np.exp(-far / (2 * (size / 8) ** 2))
            pixels = pixels.clip(0, 255).astype(np.uint8)
            name = f"{split}-{number}" + (".png" if dims == 2 else ".nii.gz")
            if dims == 2:
                Image.fromarray(pixels).save(folder / name)
            else:
                SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels), str(folder / name))
            rows.append(
                {
                    "image": name,
                    "source": "left" if number % 4 < 2 else "right",
                    "licence": "CC0",
                    "patient": name,
                    "split": split,
                    "modality": "CR" if dims == 2 else "CT",
                    "body_part": "CHEST",
                    "label": "pneumonia" if ill else "normal",
                    "age_years": int(rng.integers(20, 90)),
                    "sex": "F" if rng.random() < 0.5 else "",
                    "crp_mg_per_l": 80 if ill and number % 3 else "",
                    "brixia_senior": int(rng.integers(3, 15)) if ill and number % 3 == 0 else "",
                }
            )
    path = folder / "studies.csv"
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def small_config(dims: int = 2, **training: object) -> Config:
    """A recipe of seconds."""
    backbone = "efficientnet-lite0" if dims == 2 else "densenet121"
    settings = {"input_size": 32, "batch_size": 4, "epochs": 2, "warmup_epochs": 1, "frozen_epochs": 1, "workers": 0}
    settings["mixed_precision"] = False  # so that one way and another give the same to the last digits
    model = {"backbone": backbone, "spatial_dims": dims, "weights": "none"}
    return parse_config({"model": model, "training": settings | training})


def write_boxes(manifest: Path) -> Path:
    """A box around the blob of every ill study of a 2D manifest."""
    path = manifest.parent / "boxes.csv"
    with manifest.open(encoding="utf-8", newline="") as stream:
        ill = [row["image"] for row in csv.DictReader(stream) if row["label"] == "pneumonia"]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "reader", "x", "y", "width", "height"])
        for name in ill:
            pixels = gaussian_filter(np.asarray(Image.open(manifest.parent / name), float), 3)
            row, column = np.unravel_index(int(pixels.argmax()), pixels.shape)
            y, x = row / pixels.shape[0], column / pixels.shape[1]
            writer.writerow([f"{manifest.parent.name}/{name}", "pneumonia", "one", x - 0.15, y - 0.15, 0.3, 0.3])
    return path
