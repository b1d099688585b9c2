"""Plain signs that an image is not what a model expects, told from its pixels and header alone.

What each sign finds, and how often it is wrong, is measured in docs/decisions/0006. Modality, body part and the
direction of slices are compared with the model's card elsewhere (`deferral`); whether an image is inverted, turned or
upside down cannot be told by such plain means, and is asked of the network's features (`presentation_doubts`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..network.presentation import PRESENTATIONS
from ..study.image import MedicalImage
from ..study.phantom import PHANTOM_SOURCE

FloatArray = npt.NDArray[np.float32]

SAMPLED_SLICES = 5
"""Slices of a volume that are looked at; a sign counts where it is on all of them."""

SIDE = 256
"""Pixels along the longest side at which a picture is looked at as a whole; no pixels are averaged."""

EMPTY_SHARE = 0.96
"""Share of one gray value from which a picture counts as empty; 0.93 at most in CT slices of val."""

LEAST_SPAN = 0.04
"""Contrast, as a share of the brightness, under which a picture counts as empty; 0.55 at least on val."""

LEAST_LEVELS = 10
"""Whole gray values between dark and bright under which a picture counts as empty; 72 at least on val."""

LEAST_STRUCTURE = 0.1
"""Share of the contrast that must be left where 8 x 8 pixels are averaged; 0.42 at least on val."""

LEAST_CONTENT = 0.26
"""Share of the picture that must not be black border; 0.39 at least on val, less in few CT slices of train."""

MOST_ASPECT = 4.5
"""Longer side by shorter one; 2.8 at most on val."""

TEXT_SHARE = 0.005
"""Share of short pieces of lines that look like writing; 0.0038 at most on val beside CT."""

TEXT_SHARE_DARK = 0.045
"""The same in a picture that is mostly black, such as a CT slice: its fine bright detail looks like writing."""

MOSTLY_BLACK = 0.6
"""Share of black from which a picture counts as mostly black."""

_PIECE = 16
_TEXT_ROWS = 160
_TEXT_SIDE = 512


@dataclass(frozen=True)
class Doubt:
    """One reason to doubt that an image is what it should be.

    Attributes:
        code: What is wrong, as one word.
        message: What is wrong and what to do, for the user.
    """

    code: str
    message: str


_TURNED = Doubt("turned", "The image seems to be turned by 90 degrees. Turn it upright, or correct it in the file.")
_PRESENTED = {
    "upside_down": Doubt(
        "upside_down", "The image seems to be upside down. Turn it upright, or correct its orientation in the file."
    ),
    # which of both it is, is wrong three times in ten: both are told alike
    "turned_left": _TURNED,
    "turned_right": _TURNED,
    "inverted": Doubt(
        "inverted",
        "The image seems to be inverted: what should be bright is dark. Invert it, or correct its photometric "
        "interpretation in the file.",
    ),
}


class _Look(NamedTuple):
    """One slice as it is looked at.

    Attributes:
        pixels: (row, column) as in the image.
        low: What is as good as black.
        high: What is as good as white.
        small: (row, column) some of the pixels, 0 where black to 1 where white.
        whole: Whether they are whole numbers.
    """

    pixels: FloatArray
    low: float
    high: float
    small: FloatArray
    whole: bool


def image_doubts(image: MedicalImage, slices: Sequence[int] | None = None) -> list[Doubt]:
    """What speaks against an image, the gravest first; empty where nothing does.

    A few milliseconds, whatever the size: a picture is looked at by some of its pixels.

    Args:
        image: Image or volume.
        slices: Slices that are meant; all of them where None.
    """
    doubts = []
    if image.source == PHANTOM_SOURCE or "PHANTOM" in (image.body_part or ""):
        doubts.append(Doubt("phantom", "This is a phantom and no patient: findings on it mean nothing."))
    chosen = range(image.shape[0]) if slices is None else slices
    if not len(chosen):
        return doubts
    positions = np.unique(np.linspace(0, len(chosen) - 1, SAMPLED_SLICES).round().astype(int))
    looks = [_look(image.pixels[chosen[int(i)]]) for i in positions]
    empty = _shared(looks, lambda look: _emptiness(look, image.reader != "array"))
    if empty is not None:
        return [*doubts, empty]  # what is empty has no edges, no writing and no border
    if image.color and image.modality != "US":
        doubts.append(
            Doubt(
                "color_picture",
                "This is a color picture, and medical images of the kinds that are read here are gray. Use the "
                "original image instead of a photograph, a rendering or a fused picture.",
            )
        )
    if image.units != "HU":  # nobody writes on a picture in Hounsfield units
        doubts += [doubt for doubt in [_shared(looks, _writing)] if doubt is not None]
    doubts += [doubt for doubt in [_shared(looks, _border)] if doubt is not None]
    doubts += _aspect(image)
    return doubts


def presentation_doubts(image: MedicalImage, excess: Sequence[float]) -> list[Doubt]:
    """What a network's features say of how an image is presented; nothing where its header tells that.

    Args:
        image: Image.
        excess: For each of PRESENTATIONS, from `network.presentation.Presentation`; above 0 where it is doubted.

    Raises:
        ValueError: Not one value for each of PRESENTATIONS.
    """
    if len(excess) != len(PRESENTATIONS):
        raise ValueError(f"{len(excess)} values for {len(PRESENTATIONS)} presentations")
    likeliest = int(np.argmax(excess))
    if image.is_volume or image.units == "HU" or not excess[likeliest] > 0:
        return []
    return [_PRESENTED[PRESENTATIONS[likeliest]]]


def _look(pixels: FloatArray) -> _Look:
    step = -(-max(pixels.shape) // SIDE)
    some = pixels[::step, ::step]
    low, high = (float(value) for value in np.percentile(some, (0.5, 99.5)))
    return _Look(pixels, low, high, _scaled(some, low, high), bool((some == np.rint(some)).all()))


def _scaled(pixels: FloatArray, low: float, high: float) -> FloatArray:
    if high <= low:
        return np.zeros(pixels.shape, np.float32)
    return ((pixels - np.float32(low)) / np.float32(high - low)).clip(0, 1)


def _shared(looks: Sequence[_Look], sign: Callable[[_Look], Doubt | None]) -> Doubt | None:
    """The sign of the slice in the middle, where all have it."""
    found = [sign(look) for look in looks]
    return None if None in found else found[len(found) // 2]


def _emptiness(look: _Look, stored: bool) -> Doubt | None:
    """Hardly any contrast, nearly everything of one gray, or noise only.

    Args:
        look: Slice.
        stored: Whether whole numbers are gray values of a file.
    """
    span = look.high - look.low
    if (span < LEAST_LEVELS and stored and look.whole) or span < LEAST_SPAN * max(abs(look.low), abs(look.high)):
        return Doubt(
            "nearly_blank",
            f"The image is nearly blank: between dark and bright lie {span:.3g} gray values, at {look.low:.4g}. Check "
            "that the right file was chosen and that it was exposed and exported in full.",
        )
    counts = np.bincount((look.small * 50).astype(np.intp).ravel(), minlength=51) / look.small.size
    share = float((counts[:-1] + counts[1:]).max())
    if share > EMPTY_SHARE:
        return Doubt(
            "nearly_blank",
            f"The image is nearly blank: {share:.0%} of it have the same gray value. Check that the right file was "
            "chosen and that it was exposed and exported in full.",
        )
    rows, columns = (length // 8 for length in look.small.shape)
    if rows < 4 or columns < 4:
        return None
    cells = look.small[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8).mean((1, 3))
    if cells.var() < LEAST_STRUCTURE * look.small.var():
        return Doubt(
            "no_structure",
            "The image holds noise or a fine pattern and nothing else. Check that the right file was chosen.",
        )
    return None


def _writing(look: _Look) -> Doubt | None:
    """Text, window frames and buttons: short pieces of lines with sharp strokes on an even ground."""
    limit = TEXT_SHARE_DARK if (look.small < 0.03).mean() > MOSTLY_BLACK else TEXT_SHARE
    steps = {1, max(1, round(max(look.pixels.shape) / _TEXT_SIDE))}  # fonts may have grown with the picture, or not
    share = max(_written_share(look.pixels[:, ::step], look.low, look.high) for step in steps)
    if share <= limit:
        return None
    return Doubt(
        "screenshot",
        f"The picture holds much writing, or is the screenshot of a program ({share:.1%} of its lines look like text, "
        f"{limit:.1%} are accepted). Export the image itself, without annotations, instead of what the screen shows.",
    )


def _written_share(pixels: FloatArray, low: float, high: float) -> float:
    rows, count = pixels[:: max(1, pixels.shape[0] // _TEXT_ROWS)], pixels.shape[1] // _PIECE
    if count == 0:
        return 0.0
    pieces = _scaled(rows[:, : count * _PIECE], low, high).reshape(-1, _PIECE)
    jumps = np.diff(pieces, axis=1)
    strokes = np.minimum((jumps > 0.25).sum(1), (jumps < -0.25).sum(1))
    likely = pieces[strokes >= 2]
    likely = np.sort(likely[np.ptp(likely, axis=1) > 0.4], axis=1)
    even = (np.diff(likely, axis=1) < 0.03).sum(1)
    return float((even >= 10).sum() / len(pieces))


def _border(look: _Look) -> Doubt | None:
    filled = [float((np.percentile(look.small, 98, axis=axis) > 0.05).mean()) for axis in (0, 1)]
    content = filled[0] * filled[1]
    if content >= LEAST_CONTENT:
        return None
    return Doubt(
        "mostly_border",
        f"Only {content:.0%} of the picture are not black border. Crop it to the image, or export it in full size.",
    )


def _aspect(image: MedicalImage) -> list[Doubt]:
    x_mm, y_mm, _ = image.spacing or (1.0, 1.0, 1.0)
    extents = image.shape[1] * y_mm, image.shape[2] * x_mm
    aspect = max(extents) / min(extents)
    if aspect <= MOST_ASPECT:
        return []
    return [
        Doubt(
            "partial_picture",
            f"One side of the picture is {aspect:.1f} times the other, as of a strip cut from an image. Use the whole "
            "image.",
        )
    ]
