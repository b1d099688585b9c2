"""A picture of one prediction: the image, the image under its heat map, the finding and a color bar, side by side."""

from __future__ import annotations

import math
import os
import tempfile
import textwrap
import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import UsageError
from ..notice import RESEARCH_USE_NOTICE
from ..prediction.colormaps import color_table
from ..prediction.result import Finding, Prediction
from ..prediction.sentences import trust_sentences
from ..study.image import MedicalImage

PANEL_PIXELS = 560
LEAST_PANEL = (240, 160)
MARGIN = 16
BAR_WIDTH = 18
BAR_LABELS = 40
BACKGROUND = (16, 16, 18)
TEXT = (236, 236, 236)
QUIET = (164, 164, 170)
WARNING = (255, 196, 87)
MAX_OPACITY = 0.65
PERCENTILE_SAMPLE = 250_000
COMPRESSION = 2  # of zlib's 9: a third of the time of the default for a file a sixth larger


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
    size = size_in_picture(image)
    gray = gray_slice(image, slice_index).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    heat = Image.fromarray(prediction.maps.normalized(label, slice_index)[0])
    overlay = blend(gray, heat.resize(size, Image.Resampling.BILINEAR))

    width, height = (max(side, least) for side, least in zip(size, LEAST_PANEL, strict=True))
    inset = ((width - size[0]) // 2, (height - size[1]) // 2)
    canvas_width = 2 * width + 3 * MARGIN + BAR_WIDTH + BAR_LABELS
    lines = _lines(image, prediction, label, slice_index, canvas_width - 2 * MARGIN)
    top = MARGIN + 26
    text_height = sum(_line_height(size) for _, size, _ in lines) + MARGIN
    canvas = Image.new("RGB", (canvas_width, top + height + MARGIN + text_height), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN - 4), "Image", font=_font(15), fill=QUIET)
    draw.text((2 * MARGIN + width, MARGIN - 4), f"Heat map: {label}", font=_font(15), fill=QUIET)
    canvas.paste(gray, (MARGIN + inset[0], top + inset[1]))
    canvas.paste(overlay, (2 * MARGIN + width + inset[0], top + inset[1]))
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
            picture.save(stream, format="PNG", compress_level=COMPRESSION)
        Path(scratch).chmod(0o644)
        Path(scratch).replace(path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise


def gray_slice(image: MedicalImage, slice_index: int) -> Image.Image:
    """One slice in the window of the file, in a soft-tissue window for CT, or between its percentiles."""
    pixels = image.pixels[slice_index]
    window = image.window or ((40.0, 400.0) if image.units == "HU" else None)
    if window is not None:
        low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
    else:
        step = max(1, math.isqrt(pixels.size // PERCENTILE_SAMPLE))
        low, high = np.percentile(pixels[::step, ::step], (0.5, 99.5))
        if high <= low:  # hardly anything but background
            low, high = pixels.min(), pixels.max()
    scaled = (pixels - low) / (high - low) if high > low else np.zeros_like(pixels)
    return Image.fromarray(np.rint(scaled.clip(0, 1) * 255).astype(np.uint8))


def size_in_picture(image: MedicalImage) -> tuple[int, int]:
    """(width, height) in the picture, in the slice's physical proportions."""
    x_mm, y_mm, _ = image.spacing or (1.0, 1.0, 1.0)
    width, height = image.shape[2] * x_mm, image.shape[1] * y_mm
    scale = PANEL_PIXELS / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def blend(gray: Image.Image, heat: Image.Image) -> Image.Image:
    """The hotter, the more opaque: where nothing was seen the image stays as it is."""
    level = np.rint(np.asarray(heat).clip(0, 1) * 255).astype(np.uint8)
    opacity = np.linspace(0, MAX_OPACITY, 256, dtype=np.float32)
    added = color_table() * opacity[:, None] + np.float32(0.5)  # rounds
    mixed = (np.asarray(gray) * (1 - opacity)[level])[..., None] + added[level]
    return Image.fromarray(mixed.astype(np.uint8))


def _lines(
    image: MedicalImage, prediction: Prediction, label: str, slice_index: int, width: int
) -> list[tuple[str, int, tuple[int, int, int]]]:
    """(text, font size, color) of every line below the panels."""
    finding = next(finding for finding in prediction.findings if finding.label == label)
    severity = prediction.severity
    severe = (
        f"severity {severity.grade} ({severity.value:.1f} on {severity.scale})"
        if severity.applicable and severity.value is not None
        else "severity not applicable"
    )
    uncalibrated = "" if finding.calibrated else ", uncalibrated"
    head = f"{_said(finding)}{uncalibrated}, {severe}"
    others = "    ".join(_said(f) for f in prediction.findings if f.label != label)
    lines = [(head, 19, TEXT), (others, 14, QUIET)]
    if image.shape[0] > 1:
        place = f"Shown: slice {slice_index} of {image.shape[0]}, counted from 0, where the heat map is hottest."
        lines.append((" ".join(filter(None, (place, prediction.volume_rule))), 13, QUIET))
    lines += [(f"Leave to a human: {reason.message}", 14, WARNING) for reason in prediction.certainty.reasons]
    lines += [(f"Note: {warning}", 13, WARNING) for warning in prediction.image.warnings[:3]]
    lines += [(sentence, 13, QUIET) for sentence in trust_sentences(prediction)]
    model = prediction.provenance
    name = Path(prediction.input).name or prediction.input
    lines.append((f"{name}    {model.model} {model.model_version} on {model.device}", 13, QUIET))
    drawn = next((summary for summary in prediction.heat_maps if summary.label == label), None)
    if drawn is not None:
        against = f" against {drawn.against}" if drawn.against else ""
        lines.append((f"Heat of {label}{against} ({drawn.method}): 1 is {drawn.scale_meaning}.", 13, QUIET))
    lines.append((RESEARCH_USE_NOTICE, 13, QUIET))
    return [(part, size, color) for text, size, color in lines for part in _wrapped(text, size, width)]


def _said(finding: Finding) -> str:
    """Probability and decision; the threshold too where a high probability is not enough or a low one is."""
    surprising = (finding.decision == "present") != (finding.probability >= 0.5)
    threshold = f", threshold {finding.threshold:.2f}" if surprising else ""
    return f"{finding.label} {finding.probability:.2f} ({finding.decision}{threshold})"


def _printable(text: str) -> str:
    """Text in characters that the font has: letters without their accents, and a question mark for what is left."""
    return "".join(_drawable(character) for character in unicodedata.normalize("NFC", text))


def _drawable(character: str) -> str:
    if _has_glyph(character):
        return character
    base = unicodedata.normalize("NFKD", character)[0]
    return base if base.isascii() else "?"


@lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    if character.isascii():
        return True
    missing = _font(13).getmask("\uffff")
    drawn = _font(13).getmask(character)
    return (drawn.size, bytes(drawn)) != (missing.size, bytes(missing))


def _wrapped(text: str, size: int, width: int) -> list[str]:
    text = _printable(text)
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


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
