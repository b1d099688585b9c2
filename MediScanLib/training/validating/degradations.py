"""Damage to an image, by kind and degree: seeded, in stated units, none of it in place.

Gray values are meant between the 0.5th and the 99.5th percentile of the image, which is called its range here.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from ...study.image import MedicalImage

FloatArray = npt.NDArray[np.float32]
Generator = np.random.Generator

RANGE_PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class Degradation:
    """One kind of damage.

    Attributes:
        name: Short and stable.
        title: In words.
        unit: What the degrees count.
        degrees: From mild to severe.
        damage: Makes the damaged image from the image, a degree and a generator.
    """

    name: str
    title: str
    unit: str
    degrees: tuple[float, ...]
    damage: Callable[[MedicalImage, float, Generator], MedicalImage]

    def __call__(self, image: MedicalImage, degree: float, key: str, seed: int = 0) -> MedicalImage:
        """The damaged image; the same key and seed give the same damage.

        Args:
            image: Image or volume; left as it is.
            degree: In `unit`.
            key: Name of the study.
            seed: Of the run.
        """
        return self.damage(image, degree, generator_of(seed, self.name, key))


def generator_of(seed: int, *names: str) -> Generator:
    """A generator of its own for everything that has a name, whatever the order in which things are done."""
    return np.random.default_rng([seed, *(zlib.crc32(name.encode()) for name in names)])


def gray_range(image: MedicalImage) -> tuple[float, float]:
    """(low, high) of the gray values, leaving out the outermost."""
    low, high = np.percentile(image.pixels, RANGE_PERCENTILES)
    if high <= low:
        low, high = image.pixels.min(), image.pixels.max()
    return float(low), float(high)


def add_noise(image: MedicalImage, degree: float, generator: Generator) -> MedicalImage:
    """White Gaussian noise; degree: standard deviation in percent of the range."""
    low, high = gray_range(image)
    noise = generator.standard_normal(image.shape, dtype=np.float32)
    return image.with_pixels(image.pixels + noise * np.float32(degree / 100 * (high - low)))


def blur(image: MedicalImage, degree: float, _: Generator) -> MedicalImage:
    """Gaussian blur in the plane; degree: standard deviation in percent of the shorter side."""
    sigma = degree / 100 * min(image.shape[1:])
    return image.with_pixels(ndimage.gaussian_filter(image.pixels, (0, sigma, sigma), mode="nearest"))


def cut_window(image: MedicalImage, degree: float, _: Generator) -> MedicalImage:
    """A window that is too narrow; degree: percent of the range that is cut off, half at each end."""
    low, high = gray_range(image)
    cut = degree / 200 * (high - low)
    return image.with_pixels(image.pixels.clip(low + cut, high - cut))


def compress(image: MedicalImage, degree: float, _: Generator) -> MedicalImage:
    """JPEG and back, over the range; degree: 100 minus Pillow's quality."""
    low, high = gray_range(image)
    span = max(high - low, np.finfo(np.float32).tiny)
    levels = np.rint(((image.pixels - low) / span).clip(0, 1) * 255).astype(np.uint8)
    planes = []
    for plane in levels:
        stream = io.BytesIO()
        Image.fromarray(plane).save(stream, format="JPEG", quality=round(100 - degree))
        with Image.open(stream, formats=("JPEG",)) as decoded:
            planes.append(np.asarray(decoded, dtype=np.float32))
    return image.with_pixels((np.stack(planes) / 255 * span + low).astype(np.float32))


def rotate(image: MedicalImage, degree: float, generator: Generator) -> MedicalImage:
    """Turned in the plane about the middle, what comes in is black; degree: degrees, either way."""
    angle = degree * generator.choice((-1, 1))
    low, _ = gray_range(image)
    turned = ndimage.rotate(image.pixels, angle, axes=(2, 1), reshape=False, order=1, mode="constant", cval=low)
    return image.with_pixels(turned)


def crop(image: MedicalImage, degree: float, _: Generator) -> MedicalImage:
    """The middle of the image; degree: percent of each side that is cut off at both of its ends."""
    margins = [min(round(degree / 100 * side), (side - 1) // 2) for side in image.shape[1:]]
    rows, columns = (slice(m, side - m) for m, side in zip(margins, image.shape[1:], strict=True))
    origin = image.to_physical((0, margins[0], margins[1]))
    return replace(image, pixels=image.pixels[:, rows, columns], origin=origin)


def shifted(image: MedicalImage, rows: int, columns: int) -> MedicalImage:
    """Moved by whole pixels, down and to the right where positive; the border is repeated into what comes free."""
    at_row = (np.arange(image.shape[1]) - rows).clip(0, image.shape[1] - 1)
    at_column = (np.arange(image.shape[2]) - columns).clip(0, image.shape[2] - 1)
    return image.with_pixels(image.pixels[:, at_row[:, None], at_column[None, :]])


NOISE = Degradation("noise", "Noise", "% of the gray range (SD)", (2, 5, 10, 20), add_noise)
JPEG = Degradation("jpeg", "JPEG", "100 − quality", (25, 50, 75, 90), compress)

DEGRADATIONS = (
    NOISE,
    Degradation("blur", "Blur", "% of the shorter side (SD)", (0.5, 1, 2, 4), blur),
    Degradation("window", "Window too narrow", "% of the gray range cut off", (20, 40, 60, 80), cut_window),
    JPEG,
    Degradation("rotation", "Rotation", "degrees", (5, 10, 20, 45), rotate),
    Degradation("crop", "Crop", "% cut off at each end of each side", (5, 10, 20, 30), crop),
)
"""Damage in the stress tests of the model."""
