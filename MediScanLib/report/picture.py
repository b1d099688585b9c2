"""A picture of one prediction: the image, the image under its heat map, the finding and a color bar, side by side."""

from __future__ import annotations

import os
import tempfile
import textwrap
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError
from ..notice import RESEARCH_USE_NOTICE
from ..prediction.colormaps import color_table
from ..prediction.result import Prediction
from ..study.image import MedicalImage

PANEL_PIXELS = 560
MARGIN = 16
BAR_WIDTH = 18
BAR_LABELS = 64
BACKGROUND = (16, 16, 18)
TEXT = (236, 236, 236)
QUIET = (164, 164, 170)
WARNING = (255, 196, 87)
MAX_OPACITY = 0.65


def draw_prediction(image: MedicalImage, prediction: Prediction, label: str | None = None) -> Image.Image:
    """The picture as RGB.

    Args:
        image: What was looked at.
        prediction: What was said, with its heat maps.
        label: Finding whose map is shown; the most likely one where None.

    Raises:
        UsageError: The prediction carries no heat maps.
    """
    if prediction.maps is None:
        raise UsageError(f"{prediction.input}: there are no heat maps to draw; switch explainability on.")
    label = label or prediction.top.label
    slice_index = prediction.maps.peak(label)[1][0]
    gray = _gray(image, slice_index)
    heat = prediction.maps.normalized(label, slice_index)[0]
    size = _panel_size(image)
    plain = _to_rgb(gray).resize(size, Image.Resampling.LANCZOS)
    overlay = _blend(gray, heat).resize(size, Image.Resampling.LANCZOS)

    width, height = size
    canvas_width = 2 * width + 3 * MARGIN + BAR_WIDTH + BAR_LABELS
    lines = _lines(image, prediction, label, slice_index, canvas_width - 2 * MARGIN)
    top = MARGIN + 26
    text_height = sum(_line_height(size) for _, size, _ in lines) + MARGIN
    canvas = Image.new("RGB", (canvas_width, top + height + MARGIN + text_height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN - 4), "Image", font=_font(15), fill=QUIET)
    draw.text((2 * MARGIN + width, MARGIN - 4), f"Heat map: {label}", font=_font(15), fill=QUIET)
    canvas.paste(plain, (MARGIN, top))
    canvas.paste(overlay, (2 * MARGIN + width, top))
    _draw_bar(canvas, draw, (3 * MARGIN + 2 * width, top, BAR_WIDTH, height))
    y = top + height + MARGIN
    for text, size_, color in lines:
        draw.text((MARGIN, y), text, font=_font(size_), fill=color)
        y += _line_height(size_)
    return canvas


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a PNG so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(suffix=".png", prefix=".", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            picture.save(stream, format="PNG")
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def _gray(image: MedicalImage, slice_index: int) -> npt.NDArray[np.float32]:
    """One slice as 0..1 in the window of the file, in a soft-tissue window for CT, or between its percentiles."""
    pixels = image.pixels[slice_index]
    window = image.window or ((40.0, 400.0) if image.units == "HU" else None)
    if window is None:
        low, high = np.percentile(pixels, (0.5, 99.5))
    else:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    if high <= low:
        return np.zeros_like(pixels)
    return np.clip((pixels - low) / (high - low), 0, 1)


def _panel_size(image: MedicalImage) -> tuple[int, int]:
    """(width, height) that shows the slice in its physical proportions."""
    x_mm, y_mm, _ = image.spacing or (1.0, 1.0, 1.0)
    width, height = image.shape[2] * x_mm, image.shape[1] * y_mm
    scale = PANEL_PIXELS / max(width, height)
    return max(240, round(width * scale)), max(160, round(height * scale))


def _to_rgb(gray: npt.NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.rint(gray * 255).astype(np.uint8)).convert("RGB")


def _blend(gray: npt.NDArray[np.float32], heat: npt.NDArray[np.float32]) -> Image.Image:
    """The hotter, the more opaque: where nothing was seen the image stays as it is."""
    colors = color_table()[np.rint(heat * 255).astype(np.uint8)].astype(np.float32)
    opacity = (MAX_OPACITY * heat)[..., None]
    mixed = gray[..., None] * 255 * (1 - opacity) + colors * opacity
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _lines(
    image: MedicalImage, prediction: Prediction, label: str, slice_index: int, width: int
) -> list[tuple[str, int, tuple[int, int, int]]]:
    """(text, font size, color) of every line below the panels."""
    finding = next(finding for finding in prediction.findings if finding.label == label)
    calibrated = "" if finding.calibrated else ", uncalibrated"
    severity = prediction.severity
    severe = (
        f"severity {severity.grade} ({severity.scale} {severity.value:.1f})"
        if severity.applicable and severity.value is not None
        else "severity not applicable"
    )
    place = f", slice {slice_index + 1} of {image.shape[0]}" if image.shape[0] > 1 else ""
    head = f"{label} {finding.probability:.2f}{calibrated} ({finding.decision}), {severe}{place}"
    others = "   ".join(f"{f.label} {f.probability:.2f}" for f in prediction.findings if f.label != label)
    lines = [(head, 19, TEXT), (others, 14, QUIET)]
    lines += [(f"Leave to a human: {reason.message}", 14, WARNING) for reason in prediction.certainty.reasons]
    lines += [(f"Note: {warning}", 13, WARNING) for warning in prediction.image.warnings[:3]]
    model = prediction.provenance
    lines.append((f"{Path(prediction.input).name}   {model.model} {model.model_version} on {model.device}", 13, QUIET))
    lines.append((RESEARCH_USE_NOTICE, 13, QUIET))
    return [(part, size, color) for text, size, color in lines for part in _wrapped(text, size, width)]


def _wrapped(text: str, size: int, width: int) -> list[str]:
    average = _font(size).getlength("abcdefghijklmnopqrstuvwxyz 0123456789") / 37
    return textwrap.wrap(text, max(20, int(width / average))) or [""]


def _line_height(size: int) -> int:
    return round(size * 1.45)


def _draw_bar(canvas: Image.Image, draw: ImageDraw.ImageDraw, box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    table = color_table("inferno", height)[::-1]
    canvas.paste(Image.fromarray(np.repeat(table[:, None], width, axis=1)), (x, y))
    for value in (0.0, 0.5, 1.0):
        at = y + (1 - value) * (height - 1)
        draw.line((x + width, at, x + width + 4, at), fill=QUIET)
        anchor = "lt" if value == 1.0 else "lb" if value == 0.0 else "lm"
        draw.text((x + width + 8, at), f"{value:g}", font=_font(13), fill=QUIET, anchor=anchor)
    draw.text((x + width + 8, y + height / 4), "of the\nmodel's\nusual\npeak", font=_font(12), fill=QUIET, anchor="lm")


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
