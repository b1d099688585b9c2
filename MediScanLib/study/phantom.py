"""A phantom chest radiograph made by code: for demonstrations and tests that need a study and no patient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from .image import MedicalImage

PHANTOM_SOURCE = "phantom chest radiograph (made by code, no patient)"


def make_phantom(rows: int = 560, columns: int = 480, *, opacity: float = 0.5, seed: int = 0) -> MedicalImage:
    """A frontal chest drawn from ellipses, with an opacity in the lung on the image's right side.

    Args:
        rows: Image height.
        columns: Image width.
        opacity: Density of the opacity, 0 (none) to 1.
        seed: Of the noise.

    Returns:
        One slice, modality DX, 0.8 mm pixels scaled so that the chest is 384 mm wide; the word PHANTOM is burnt in.
    """
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    u = (x - columns / 2) / (columns / 2)
    v = (y - rows / 2) / (rows / 2)

    body = _soft(_ellipse(u, v, 0.0, 0.3, 0.95, 1.35))
    absorbed = 0.55 * body
    lungs = np.maximum(_ellipse(u, v, -0.43, 0.0, 0.33, 0.66), _ellipse(u, v, 0.43, 0.0, 0.33, 0.66))
    lungs = _soft(lungs, 0.08) * _soft(0.62 - v + 0.25 * np.square(u), 0.08)
    absorbed -= 0.42 * lungs
    absorbed += 0.30 * _soft(_ellipse(u, v, 0.0, 0.0, 0.1, 1.6), 0.25)
    absorbed += 0.28 * _soft(_ellipse(u, v, 0.12, 0.28, 0.3, 0.32), 0.15)
    absorbed += 0.08 * lungs * _ribs(u, v)
    for side in (-1, 1):
        clavicle = _soft(0.03 - np.abs(v + 0.66 + 0.12 * side * u), 0.02) * _soft(side * u - 0.1, 0.05)
        absorbed += 0.1 * body * clavicle
    absorbed += 0.32 * opacity * np.exp(-np.square((u - 0.45) / 0.16) - np.square((v - 0.28) / 0.16)) * lungs
    noise = np.random.default_rng(seed).normal(0, 0.012, absorbed.shape)
    pixels = np.clip((absorbed + 0.05 + noise) * 4095, 0, 4095).astype(np.float32)

    lettering = _lettering(rows, columns)
    pixels = np.where(lettering > 0, 4095.0 * lettering, pixels).astype(np.float32)
    spacing = 384.0 / columns
    return MedicalImage(
        pixels=pixels[None],
        spacing=(spacing, spacing, 1.0),
        modality="DX",
        body_part="CHEST",
        view="PA",
        window=(2047.5, 4095.0),
        reader="MediScan phantom",
        source=PHANTOM_SOURCE,
        warnings=("This is a phantom drawn by code, not a patient: findings on it mean nothing.",),
    )


def _ellipse(
    u: npt.NDArray[np.float32], v: npt.NDArray[np.float32], cu: float, cv: float, ru: float, rv: float
) -> npt.NDArray[np.float32]:
    """Positive inside, zero on the border, 1 in the center."""
    return 1 - np.square((u - cu) / ru) - np.square((v - cv) / rv)


def _soft(signed: npt.NDArray[np.float32], width: float = 0.05) -> npt.NDArray[np.float32]:
    """A border of that width instead of a step."""
    return 1 / (1 + np.exp(-np.clip(signed / width * 4, -30, 30)))


def _ribs(u: npt.NDArray[np.float32], v: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    arc = v + 0.5 * np.square(np.abs(u) - 0.1)
    return np.square(np.sin(arc * 24).clip(0))


def _lettering(rows: int, columns: int) -> npt.NDArray[np.float32]:
    canvas = Image.new("L", (columns, rows))
    font = ImageFont.load_default(size=max(10, rows // 28))
    ImageDraw.Draw(canvas).text((columns * 0.03, rows * 0.02), "PHANTOM", fill=255, font=font)
    return np.asarray(canvas, dtype=np.float32) / np.float32(255)
