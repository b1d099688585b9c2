"""A small picture of one slice: the image, under a heat map if there is one, with the outline of readers' marks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from ..study.image import MedicalImage
from .picture import PANEL_PIXELS, blend, gray_slice, size_in_picture

TILE_PIXELS = 256
OUTLINE, HALO = (0, 230, 255), (0, 0, 0)
OUTLINE_PIXELS = 3


def draw_tile(
    image: MedicalImage,
    slice_index: int,
    heat: npt.NDArray[np.float32] | None = None,
    marked: npt.NDArray[np.bool_] | None = None,
) -> Image.Image:
    """The picture as RGB, its longer side TILE_PIXELS.

    Args:
        image: Image.
        slice_index: Slice.
        heat: (row, column) from 0 to 1 in cells that cover the slice, drawn as it is: not stretched to its own peak.
        marked: (row, column) on the slice's own grid.
    """
    width, height = (max(1, round(side * TILE_PIXELS / PANEL_PIXELS)) for side in size_in_picture(image))
    size = (width, height)
    gray = gray_slice(image, slice_index).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    picture = (
        gray.convert("RGB")
        if heat is None
        else blend(gray, Image.fromarray(np.ascontiguousarray(heat)).resize(size, Image.Resampling.BILINEAR))
    )
    if marked is not None:
        inside = Image.fromarray(np.where(marked, 255, 0).astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
        for color, width in ((HALO, OUTLINE_PIXELS + 2), (OUTLINE, OUTLINE_PIXELS)):
            picture.paste(color, mask=_border(inside, width))
    return picture


def _border(inside: Image.Image, width: int) -> Image.Image:
    """A line of that many pixels astride the edge; where the marks meet the border of the picture, inside it."""
    grown = np.asarray(inside.filter(ImageFilter.MaxFilter(3 if width <= OUTLINE_PIXELS else 5)))
    padded = np.pad(np.asarray(inside), 1)
    eroded = np.asarray(Image.fromarray(padded).filter(ImageFilter.MinFilter(3 if width <= OUTLINE_PIXELS else 5)))
    return Image.fromarray(np.where((grown > 0) & (eroded[1:-1, 1:-1] == 0), 255, 0).astype(np.uint8))
