"""Random changes of training images that a radiographer's day could have made too.

Ranges differ by what the image is. Nothing is ever flipped up-down. A chest keeps its sides, because the heart lies
left; a limb or a breast exists on both sides of the body and may be mirrored.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import torch
from monai.transforms import (
    Compose,
    RandAdjustContrast,
    RandAffine,
    RandFlip,
    RandGaussianNoise,
    RandScaleIntensity,
    RandShiftIntensity,
)
from monai.utils.type_conversion import convert_to_tensor

from ..study.image import RADIOGRAPH_MODALITIES

LIMBS = frozenset(
    (
        *("EXTREMITY", "ARM", "HAND", "FINGER", "WRIST", "FOREARM", "ELBOW", "HUMERUS", "SHOULDER"),
        *("LEG", "HIP", "FEMUR", "KNEE", "TIBIA", "ANKLE", "FOOT", "TOE"),
    )
)


@dataclass(frozen=True)
class Ranges:
    """How far an image is changed at the most, at strength 1.

    Attributes:
        rotation_degrees: In the image plane, either way.
        translation: Fraction of the side, either way.
        zoom: Fraction, either way.
        mirror: Whether left and right may be exchanged.
        gamma: Exponent between 1 - gamma and 1 + gamma.
        gain: Factor between 1 - gain and 1 + gain.
        offset: Added to pixels of 0 to 1, either way.
        noise: Largest standard deviation of Gaussian noise on pixels of 0 to 1.
    """

    rotation_degrees: float
    translation: float
    zoom: float
    mirror: bool
    gamma: float
    gain: float
    offset: float
    noise: float


RANGES = {
    "radiograph": Ranges(7, 0.05, 0.10, mirror=False, gamma=0.25, gain=0.15, offset=0.05, noise=0.02),
    "limb radiograph": Ranges(20, 0.05, 0.15, mirror=True, gamma=0.25, gain=0.15, offset=0.05, noise=0.02),
    "mammogram": Ranges(7, 0.05, 0.10, mirror=True, gamma=0.20, gain=0.15, offset=0.05, noise=0.01),
    # the probe is tilted and the gain is turned, but shadows always point away from the probe
    "ultrasound": Ranges(5, 0.08, 0.10, mirror=False, gamma=0.30, gain=0.20, offset=0.05, noise=0.03),
    "breast ultrasound": Ranges(5, 0.08, 0.10, mirror=True, gamma=0.30, gain=0.20, offset=0.05, noise=0.03),
    # Hounsfield units are calibrated: only the window jitters a little
    "CT": Ranges(7, 0.05, 0.08, mirror=False, gamma=0.10, gain=0.10, offset=0.03, noise=0.01),
    "other": Ranges(7, 0.05, 0.08, mirror=False, gamma=0.15, gain=0.10, offset=0.03, noise=0.01),
}
"""By kind of image, see `kind_of`."""


def kind_of(modality: str, body_part: str) -> str:
    """Key of `RANGES` for a DICOM modality code and a body part, either of which may be ""."""
    if modality == "MG":
        return "mammogram"
    if modality in RADIOGRAPH_MODALITIES:
        return "limb radiograph" if body_part.upper() in LIMBS else "radiograph"
    if modality == "US":
        return "breast ultrasound" if body_part.upper() == "BREAST" else "ultrasound"
    return "CT" if modality == "CT" else "other"


class Augmentation:
    """Changes images at random, the same way for the same seed, whichever process loads them.

    Args:
        kind: Key of `RANGES`.
        size: Spatial size of the images, (rows, columns) or (slices, rows, columns).
        strength: Factor of all ranges; 0 leaves images alone.
    """

    def __init__(self, kind: str, size: tuple[int, ...], strength: float = 1.0) -> None:
        ranges = RANGES[kind]
        self.strength = strength
        angle = math.radians(ranges.rotation_degrees * strength)
        # MONAI's first axis of rotation of a volume is the slice axis, so that one angle turns within the slices
        moves = [
            RandAffine(
                prob=0.9,
                rotate_range=(angle,),
                translate_range=[length * ranges.translation * strength for length in size],
                scale_range=[ranges.zoom * strength] * len(size),
                mode="bilinear",
                padding_mode="zeros",  # black, as outside a collimator
            ),
            *([RandFlip(prob=0.5, spatial_axis=len(size) - 1)] if ranges.mirror else []),
        ]
        shades = [
            RandAdjustContrast(prob=0.5, gamma=(1 / (1 + ranges.gamma * strength), 1 + ranges.gamma * strength)),
            RandScaleIntensity(factors=ranges.gain * strength, prob=0.5),
            RandShiftIntensity(offsets=ranges.offset * strength, prob=0.5),
            RandGaussianNoise(prob=0.3, std=ranges.noise * strength),
        ]
        self._moves, self._shades = Compose(moves), Compose(shades)

    def __call__(self, image: torch.Tensor, seed: int) -> torch.Tensor:
        """A changed copy.

        Args:
            image: (1, *spatial) with pixels of 0 to 1. Further channels move with the first and keep their values:
                marks on the image.
            seed: 0 to 2**32 - 1.
        """
        if not self.strength:
            return image
        self._moves.set_random_state(seed)
        self._shades.set_random_state(seed ^ 1)  # another seed, or how it moves would tell how it is shaded
        moved = self._moves(image)
        changed = torch.cat([self._shades(moved[:1]), moved[1:]])
        # a plain tensor: a MetaTensor would carry its bookkeeping through the whole network
        plain: torch.Tensor = convert_to_tensor(changed, track_meta=False)
        return plain.clamp(0, 1)


def describe(kinds: set[str], strength: float) -> dict[str, object]:
    """What is done to images of these kinds, for the card."""
    return {"strength": strength, "ranges": {kind: asdict(RANGES[kind]) for kind in sorted(kinds)}}
