"""From stored values to the values of `MedicalImage`: modality LUT, padding, VOI, and one inversion at most.

The order is the standard's (PS3.4 N.2): modality transformation, then VOI transformation, then presentation.
MediScan stops before the linear window, which it hands on as `window`, so that values keep their meaning.
"""

from __future__ import annotations

import warnings as python_warnings
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut

from ..errors import ReadError
from .dicom_layout import PixelLayout
from .dicom_values import element_items, element_number, element_numbers, element_text, element_value
from .guards import finite_float32, reported
from .hounsfield import AIR_HU
from .image import RADIOGRAPH_MODALITIES
from .luminance import luminance

_DENSEST_HU = 3071.0  # the top of the 12-bit scale


@dataclass(frozen=True)
class Rendering:
    """Values with what they mean.

    Attributes:
        pixels: (frame, row, column) float32.
        units: "HU" or "intensity".
        window: (center, width) in units of `pixels`.
        color: From colour.
        inverted: MONOCHROME1 or an inverse presentation was turned round.
        warnings: For the user.
    """

    pixels: npt.NDArray[np.float32]
    units: Literal["HU", "intensity"] = "intensity"
    window: tuple[float, float] | None = None
    color: bool = False
    inverted: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class LookupTable:
    """A Modality or VOI LUT (PS3.3 C.11.1, C.11.2).

    Attributes:
        first: Input value that the first entry stands for.
        entries: Output values.
        top: Largest output value that the table's depth allows.
    """

    first: int
    entries: npt.NDArray[np.float32]
    top: float

    def __call__(self, values: npt.NDArray) -> npt.NDArray[np.float32]:
        """Map values; those beyond the ends take the first or last entry."""
        index = np.clip(np.rint(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return self.entries[index]


def render(
    header: Dataset, frames: list[Dataset], layout: PixelLayout, stored: npt.NDArray, compressed: bool, name: str
) -> Rendering:
    """Turn stored values into image values.

    Args:
        header: Top-level data set.
        frames: For each frame the data set in which to look for rescale and VOI first (its functional groups).
        layout: Pixel layout.
        stored: What `stored_values` returns.
        compressed: Whether the pixels were compressed.
        name: File, for errors.

    Raises:
        ReadError: corrupt, unsupported or not_finite.
    """
    if layout.samples > 1 or layout.photometric == "PALETTE COLOR":
        return _luminance(header, layout, stored, compressed, name)
    if layout.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise ReadError(
            name, f"has the photometric interpretation {layout.photometric!r}", "Convert it.", code="unsupported"
        )
    return _grey(header, frames, layout, stored, name)


def _luminance(header: Dataset, layout: PixelLayout, stored: npt.NDArray, compressed: bool, name: str) -> Rendering:
    """Luminance from 0 to 255, whatever the depth: with colour the depth says nothing about brightness."""
    top = float(layout.value_range[1])
    if layout.photometric == "PALETTE COLOR":
        with python_warnings.catch_warnings(), reported(name, "reading its palette"):
            python_warnings.simplefilter("ignore")
            stored = apply_color_lut(stored, _little_endian_palette(header))
        top = 65535.0 if stored.max() > 255 else 255.0  # 16-bit entries often hold 8-bit values
    elif layout.photometric not in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"):
        raise ReadError(
            name, f"has the photometric interpretation {layout.photometric!r}", "Convert it.", code="unsupported"
        )
    first_is_luminance = not compressed and layout.photometric.startswith("YBR")
    pixels = stored[..., 0].astype(np.float32) if first_is_luminance else luminance(stored)
    return Rendering(pixels * np.float32(255 / top), color=True)


def _little_endian_palette(header: Dataset) -> Dataset:
    """The header with palette entries in the byte order that pydicom takes for granted."""
    if header.original_encoding[1] is not False:
        return header
    palette = Dataset()
    palette.update(header)
    for color in ("Red", "Green", "Blue"):
        keyword = f"{color}PaletteColorLookupTableData"
        if keyword in header:
            setattr(palette, keyword, np.frombuffer(header[keyword].value, dtype=">u2").astype("<u2").tobytes())
    palette.set_original_encoding(False, False)  # segmented ones are swapped by pydicom
    return palette


def _grey(header: Dataset, frames: list[Dataset], layout: PixelLayout, stored: npt.NDArray, name: str) -> Rendering:
    modality = element_text(header, "Modality")
    padding = _padding(header, layout, stored)
    pixels, notes = finite_float32(stored, name)
    low, high = map(float, layout.value_range)
    if stored.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())

    table = _table(header, "ModalityLUTSequence", layout.signed, name)
    rescales = [_rescale(frame) or _rescale(header) for frame in frames]
    rescale_type = element_text(frames[0], "RescaleType") or element_text(header, "RescaleType")
    if table is not None:
        pixels, low, high = table(pixels), 0.0, table.top
    elif any(rescales):
        ends = []
        for index, (slope, intercept) in enumerate(pair or (1.0, 0.0) for pair in rescales):
            pixels[index] = pixels[index] * np.float32(slope) + np.float32(intercept)
            ends += [slope * low + intercept, slope * high + intercept]
        low, high = min(ends), max(ends)
        pixels, more = finite_float32(pixels, name)
        notes += more
    is_hounsfield = modality == "CT" and (any(rescales) or rescale_type == "HU") and rescale_type in (None, "HU")

    values = Rendering(pixels, "HU" if is_hounsfield else "intensity")
    result = _voi(header, frames[0], modality in RADIOGRAPH_MODALITIES, values, (low, high), name)
    if result.pixels is not pixels and result.window is not None:  # a table or a sigmoid made new values
        center, width = result.window
        low, high = center - width / 2, center + width / 2
    result = _presentation(header, layout, result, low, high)
    return replace(_fill(result, padding), warnings=(*notes, *result.warnings))


def _rescale(dataset: Dataset) -> tuple[float, float] | None:
    slope = element_number(dataset, "RescaleSlope")
    intercept = element_number(dataset, "RescaleIntercept")
    if slope is None and intercept is None:
        return None
    return (1.0 if slope in (None, 0.0) else float(slope or 1.0)), (intercept or 0.0)


def _table(dataset: Dataset, keyword: str, signed: bool, name: str) -> LookupTable | None:
    items = element_items(dataset, keyword)
    if not items:
        return None
    descriptor = element_numbers(items[0], "LUTDescriptor", 3)
    data = element_value(items[0], "LUTData")
    if not data and descriptor is None:  # an empty item, as some converters leave behind
        return None
    if descriptor is None or not data:
        raise ReadError(name, f"its {keyword} is incomplete", "Export it again.", code="corrupt")
    count, first, bits = (int(value) for value in descriptor)
    count = count % 65536 or 65536
    if signed and first > 32767:  # the second value takes the sign of the input, whatever its own VR
        first -= 65536
    with reported(name, f"reading its {keyword}"):
        if isinstance(data, bytes | bytearray):
            order = ">" if dataset.original_encoding[1] is False else "<"
            values = np.frombuffer(data, dtype=f"{order}u2" if len(data) >= 2 * count else "u1")
        else:
            values = np.asarray(data, dtype=np.int64).ravel() & 0xFFFF
    if len(values) == (count + 1) // 2 and bits <= 8:  # two 8-bit entries in a word
        values = values.astype("<u2").view("u1")
    if len(values) < count or not 1 <= bits <= 16:
        raise ReadError(name, f"its {keyword} is shorter than it says", "Export it again.", code="corrupt")
    entries = values[:count].astype(np.float32)
    return LookupTable(first, entries, max(float((1 << bits) - 1), float(entries.max())))


def _window(dataset: Dataset) -> tuple[float, float, str] | None:
    """(center, width, function) of the first usable window."""
    centers = element_numbers(dataset, "WindowCenter") or ()
    widths = element_numbers(dataset, "WindowWidth") or ()
    function = element_text(dataset, "VOILUTFunction") or "LINEAR"
    for center, width in zip(centers, widths, strict=False):
        if width >= 1 or (function != "LINEAR" and width > 0):  # PS3.3 C.11.2.1.2
            return center, width, function
    return None


def _voi(
    header: Dataset, frame: Dataset, radiograph: bool, values: Rendering, limits: tuple[float, float], name: str
) -> Rendering:
    """Bend the values of a radiograph by a VOI LUT or sigmoid; of all else keep the values and tell the window."""
    table = _table(header, "VOILUTSequence", limits[0] < 0, name)
    if table is not None:
        if radiograph:
            return replace(values, pixels=table(values.pixels), window=(table.top / 2, table.top))
        last = table.first + len(table.entries) - 1
        return replace(values, window=((table.first + last) / 2, float(max(1, last - table.first))))
    window = _window(frame) or _window(header)
    if window is None:
        return values
    center, width, function = window
    half = width / 2
    if center + half <= values.pixels.min() or center - half >= values.pixels.max():
        note = "The window in the header shows none of the pixel values; ignored."
        return replace(values, warnings=(*values.warnings, note))
    if function == "SIGMOID" and radiograph:  # PS3.3 C.11.2.1.3.1, output over the range of the input
        low, high = limits
        with np.errstate(over="ignore"):
            curve = 1 / (1 + np.exp(np.float32(-4 / width) * (values.pixels - np.float32(center))))
        pixels = np.float32(low) + np.float32(high - low) * curve
        return replace(values, pixels=pixels, window=((low + high) / 2, high - low))
    return replace(values, window=(center, width))


def _presentation(header: Dataset, layout: PixelLayout, values: Rendering, low: float, high: float) -> Rendering:
    """Turn values round where small ones are to be seen bright.

    MONOCHROME1 and Presentation LUT Shape INVERSE say the same thing twice in digital radiographs (PS3.3
    C.8.11.3.1.2) and must not cancel each other.
    """
    shape = element_text(header, "PresentationLUTShape")
    monochrome1 = layout.photometric == "MONOCHROME1"
    if not monochrome1 and shape != "INVERSE":
        return values
    notes = values.warnings
    if values.units == "HU":  # a unit says which way it grows; only the display is asked to be inverted
        note = "The file asks for an inverted display; its Hounsfield units were kept as they are."
        return replace(values, warnings=(*notes, note))
    if monochrome1 != (shape == "INVERSE") and shape in ("INVERSE", "IDENTITY"):
        notes += (
            f"The header contradicts itself ({layout.photometric}, presentation {shape}); "
            "it was taken as inverted: check that bone is brighter than air.",
        )
    window = values.window and (low + high - values.window[0], values.window[1])
    return replace(values, pixels=np.float32(low + high) - values.pixels, window=window, inverted=True, warnings=notes)


def _padding(header: Dataset, layout: PixelLayout, stored: npt.NDArray) -> npt.NDArray[np.bool_] | None:
    """Where the stored values are padding (PS3.3 C.7.5.1.1.2)."""
    first = element_number(header, "PixelPaddingValue")
    if first is None or stored.dtype.kind == "f":
        return None
    last = element_number(header, "PixelPaddingRangeLimit")
    span = 1 << 16
    ends = sorted((first, first if last is None else last))
    if layout.signed:  # both are often written with the wrong sign
        ends = sorted(end - span if end >= span / 2 else end for end in ends)
    else:
        ends = sorted(end + span if end < 0 else end for end in ends)
    return (stored >= ends[0]) & (stored <= ends[1])


def _fill(values: Rendering, padding: npt.NDArray[np.bool_] | None) -> Rendering:
    """Give padding the darkest true value, and CT outside the scanner's circle the value of air."""
    pixels = values.pixels
    if padding is not None and values.units == "HU":
        # Files exist that call 0 HU padding: only what no tissue can be is believed.
        padding = padding & ((pixels < AIR_HU) | (pixels > _DENSEST_HU))
    if padding is not None and padding.any() and not padding.all():
        true = pixels[~padding]
        # Padding that is dark already is left: where compression was lossy the smallest value is an artifact.
        wrong = padding & ((pixels > np.median(true)) | (pixels < true.min()))
        pixels = np.where(wrong, true.min(), pixels)
    if values.units == "HU":
        pixels = np.maximum(pixels, np.float32(AIR_HU))
    return replace(values, pixels=pixels)
