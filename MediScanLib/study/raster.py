"""PNG, JPEG and TIFF: pictures without a place in space."""

from __future__ import annotations

import warnings as python_warnings

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from ..errors import ReadError
from .guards import Source, check_memory, finite_float32, reported
from .image import MedicalImage
from .luminance import to_gray

_FORMATS = ("PNG", "JPEG", "TIFF")  # nothing else that Pillow can parse is reachable
_GREY = ("1", "L", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_BITS, _PHOTOMETRIC = 258, 262  # TIFF tags
_WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def read_raster(source: Source, memory_limit: int) -> MedicalImage:
    """Read a picture; the pages of a TIFF become slices.

    Colour becomes luminance, transparency is laid over black, the orientation that a camera noted is applied. Grey and
    16-bit values stay as they are.

    Raises:
        ReadError: not_an_image, truncated, corrupt, too_large, unsupported, geometry or not_finite.
    """
    name = source.name
    with source.open() as stream, python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")
        python_warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(stream, formats=_FORMATS) as picture, reported(name, "decoding its pixels"):
                return _read(picture, name, memory_limit)
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise ReadError(
                name,
                f"its header promises more than {Image.MAX_IMAGE_PIXELS} pixels",
                "Crop or resample it, or convert it to DICOM or NIfTI.",
                code="too_large",
            ) from None
        except UnidentifiedImageError:
            raise ReadError(
                name, "starts like a picture but is none", "Export it again as PNG.", code="corrupt"
            ) from None
        except ReadError:
            raise
        except Exception as error:
            raise ReadError(
                name, f"is a damaged picture ({type(error).__name__})", "Export it again.", code="corrupt"
            ) from None


def _read(picture: Image.Image, name: str, memory_limit: int) -> MedicalImage:
    kind = str(picture.format)
    count = int(getattr(picture, "n_frames", 1))
    notes: list[str] = []
    if kind != "TIFF" and count > 1:
        notes.append(f"This is an animation of {count} pictures; the first was read.")
        count = 1
    width, height = picture.size
    if width < 1 or height < 1:
        raise ReadError(name, f"is a picture of {height} x {width} pixels", "Export it again.", code="empty")
    if count > 65535:
        raise ReadError(name, f"promises {count} pages", "Do not use this file.", code="too_large")
    check_memory(name, height * width * (4 * count + 24), memory_limit)
    pages: list[npt.NDArray[np.float32]] = []
    color = False
    inverted = False
    for index in range(count):
        if count > 1:
            picture.seek(index)
            if picture.size != (width, height):
                raise ReadError(
                    name, "its pages differ in size", "Save each page as a file of its own.", code="geometry"
                )
        values, page_color, more = _page(picture, name)
        inverted |= _white_is_zero(picture)
        pages.append(values)
        color |= page_color
        notes += [note for note in more if note not in notes]
    pixels, more_notes = finite_float32(np.stack(pages), name)
    if count > 1:
        notes.append(f"The {count} pages are taken as loose pictures: a TIFF does not say where they lie.")
    return MedicalImage(
        pixels=pixels,
        slice_axis="frame" if count > 1 else "position",
        color=color,
        inverted=inverted,
        reader=f"Pillow {PIL.__version__} ({kind})",
        source=name,
        warnings=(*notes, *more_notes),
    )


def _page(picture: Image.Image, name: str) -> tuple[npt.NDArray, bool, list[str]]:
    """(row, column) values, whether they held colour, and notes."""
    try:
        page = ImageOps.exif_transpose(picture)
    except OSError as error:
        missing = "truncated" in str(error) or "not processed" in str(error)
        raise ReadError(
            name,
            "ends inside its pixels" if missing else "is a damaged picture",
            "Copy or export it again.",
            code="truncated" if missing else "corrupt",
        ) from None
    notes: list[str] = []
    if page.mode in _WIDE:
        return _upright(np.asarray(page), picture), False, notes
    if "transparency" in page.info or page.mode in ("LA", "PA", "La", "RGBa", "RGBA"):
        page = page.convert("RGBA")
        if np.asarray(page)[..., 3].min() < 255:
            notes.append("Its transparent parts were laid over black.")
            page = Image.alpha_composite(Image.new("RGBA", page.size, (0, 0, 0, 255)), page)
    if page.mode in _GREY:
        return np.asarray(page.convert("L")), False, notes
    channels = np.asarray(page.convert("RGB"))
    gray, color = to_gray(channels)
    return gray, color, notes


def _white_is_zero(picture: Image.Image) -> bool:
    """True for a TIFF page whose small values are to be seen bright, as film digitizers write."""
    return isinstance(picture, TiffImageFile) and picture.tag_v2.get(_PHOTOMETRIC) == 0


def _upright(values: npt.NDArray, picture: Image.Image) -> npt.NDArray:
    """Values of which large ones are bright; Pillow turns pages of up to 8 bits itself, and no others."""
    if not isinstance(picture, TiffImageFile) or not _white_is_zero(picture):
        return values
    if values.dtype.kind == "u":
        top = (1 << picture.tag_v2.get(_BITS, (16,))[0]) - 1
        return top - values.astype(np.int64)
    return values.min() + values.max() - values
