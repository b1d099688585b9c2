"""Stored pixel values of a DICOM object, whatever their transfer syntax."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder

from ..errors import ReadError
from .codestream import codestream_size, jpeg_is_ycbcr
from .decoding import shared_decoder
from .dicom_header import DicomObject
from .dicom_layout import PixelLayout
from .dicom_values import element_text, element_value
from .guards import check_memory, reported

_GDCM_SYNTAXES = (
    uid.RLELossless,
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000Lossless,
    uid.JPEG2000,
)


def stored_values(header: DicomObject, layout: PixelLayout, memory_limit: int) -> tuple[npt.NDArray, str]:
    """Decode all frames.

    Args:
        header: The object.
        layout: Its pixel layout.
        memory_limit: Bytes that this may need.

    Returns:
        (frame, row, column), or (frame, row, column, sample) where samples are RGB if they were compressed and as the
        header says if not; unused bits are cleared. And what decoded them.

    Raises:
        ReadError: no_pixel_data, too_large, size_mismatch, truncated, corrupt or unsupported.
    """
    if header.pixel_keyword is None:
        raise ReadError(
            header.name, "is a DICOM object without an image", "Give an image of the study.", code="no_pixel_data"
        )
    needed = layout.peak_bytes + _curve_bytes(header, layout)
    if header.is_compressed:
        needed += header.size - header.pixel_offset
    check_memory(header.name, needed, memory_limit)
    if header.is_compressed:
        return _compressed(header, layout), f"pydicom {pydicom.__version__}, GDCM of SimpleITK {SimpleITK.__version__}"
    values = _native(header, layout)
    return _used_bits(values, layout), f"pydicom {pydicom.__version__}"


def _curve_bytes(header: DicomObject, layout: PixelLayout) -> int:
    """What looking pixels up in a table, or bending them by a sigmoid, takes on top: 64-bit indices and copies."""
    dataset = header.dataset
    tables = any(element_value(dataset, keyword) for keyword in ("ModalityLUTSequence", "VOILUTSequence"))
    return 16 * layout.elements if tables or element_text(dataset, "VOILUTFunction") == "SIGMOID" else 0


def _native(header: DicomObject, layout: PixelLayout) -> npt.NDArray:
    expected = layout.native_bytes
    promised = header.pixel_length
    size = f"{layout.frames} x {layout.rows} x {layout.columns} pixels ({expected} bytes)"
    if promised < expected:
        raise ReadError(
            header.name,
            f"its header promises {size} but {promised} bytes follow",
            "Export it again.",
            code="size_mismatch",
        )
    value = header.read_pixels(expected + expected % 2)
    if len(value) < expected:
        raise ReadError(
            header.name,
            f"ends inside its pixels: {len(value)} of {expected} bytes are there",
            "Copy or export it again.",
            code="truncated",
        )
    syntax = uid.ExplicitVRLittleEndian if header.little_endian else uid.ExplicitVRBigEndian
    with warnings.catch_warnings(), reported(header.name, "reading the pixels"):
        warnings.simplefilter("ignore")
        options: dict[str, Any] = {
            "transfer_syntax_uid": syntax,
            "rows": layout.rows,
            "columns": layout.columns,
            "number_of_frames": layout.frames,
            "samples_per_pixel": layout.samples,
            "photometric_interpretation": layout.photometric,
            "bits_allocated": layout.bits_allocated,
            "bits_stored": layout.bits_allocated,  # bits are cleared here, where HighBit is known
            "pixel_representation": int(layout.signed),
            "planar_configuration": int(layout.planar),
            "pixel_keyword": header.pixel_keyword,
            "pixel_vr": header.pixel_vr or "OW",
        }
        array, _ = get_decoder(syntax).as_array(value, raw=True, **options)
    return array.reshape(
        (layout.frames, layout.rows, layout.columns, layout.samples)[: 4 if layout.samples > 1 else 3]
    )


def _used_bits(values: npt.NDArray, layout: PixelLayout) -> npt.NDArray:
    """Move the stored bits down and clear the others, where old files keep overlays (PS3.5 8.1.1)."""
    if values.dtype.kind == "f" or layout.bits_allocated == 1 or layout.bits_stored == layout.bits_allocated:
        return values
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    above = layout.bits_allocated - 1 - layout.high_bit
    # left, then an arithmetic shift right for signed values, a logical one for unsigned
    return (values << above) >> (layout.bits_allocated - layout.bits_stored)


def _compressed(header: DicomObject, layout: PixelLayout) -> npt.NDArray:
    if header.transfer_syntax not in _GDCM_SYNTAXES:
        raise ReadError(
            header.name,
            f"is compressed as {header.transfer_syntax.name}, which MediScan does not decode",
            "Convert it to uncompressed DICOM or JPEG 2000.",
            code="unsupported",
        )
    if header.pixel_keyword != "PixelData" or layout.bits_allocated not in (8, 16, 32):
        raise ReadError(header.name, "holds compressed pixels of an unknown kind", "Convert it.", code="unsupported")
    shape = (layout.rows, layout.columns, layout.samples)[: 3 if layout.samples > 1 else 2]
    result: npt.NDArray | None = None
    done = 0
    for frame in _frames(header, layout):
        _check_size(header, layout, codestream_size(frame))
        values = shared_decoder().decode(
            _bare_file(header, layout, frame), header.name, layout.native_bytes // layout.frames
        )
        if values.shape[1:] != shape or values.dtype.kind not in "iu":
            raise ReadError(
                header.name,
                f"its compressed pixels are {_times(values.shape[1:])}, its header promises {_times(shape)}",
                "Export it again.",
                code="size_mismatch",
            )
        if result is None:
            result = np.empty((layout.frames, *shape), values.dtype)
        result[done] = values[0]
        done += 1
        if done == layout.frames:
            return result
    raise ReadError(
        header.name,
        f"holds {done} of the {layout.frames} frames that its header promises",
        "Copy or export it again.",
        code="truncated",
    )


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _frames(header: DicomObject, layout: PixelLayout) -> Iterator[bytes]:
    content = header.read_pixels(header.size - header.pixel_offset)
    _check_fragments(header, content)
    tables = (
        element_value(header.dataset, "ExtendedOffsetTable"),
        element_value(header.dataset, "ExtendedOffsetTableLengths"),
    )
    with warnings.catch_warnings(), reported(header.name, "splitting its compressed frames"):
        warnings.simplefilter("ignore")
        yield from generate_frames(
            content, number_of_frames=layout.frames, extended_offsets=tables if all(tables) else None
        )


def _check_fragments(header: DicomObject, content: bytes) -> None:
    """Every fragment must be there in full (PS3.5 A.4); decoders fill what is missing with grey or garbage."""
    order: Literal["little", "big"] = "little" if header.little_endian else "big"
    at = 0
    while at < len(content):
        group, element = (int.from_bytes(content[at + i : at + i + 2], order) for i in (0, 2))
        length = int.from_bytes(content[at + 4 : at + 8], order)
        if (group, element) == (0xFFFE, 0xE0DD):  # sequence delimiter; files that lack only this one are complete
            return
        if (group, element) != (0xFFFE, 0xE000):
            raise ReadError(
                header.name, "holds nonsense between its compressed fragments", "Export it again.", code="corrupt"
            )
        at += 8 + length
    if at > len(content):
        raise ReadError(header.name, "ends inside its compressed pixels", "Copy or export it again.", code="truncated")


def _check_size(header: DicomObject, layout: PixelLayout, stated: tuple[int, int, int] | None) -> None:
    promised = (layout.rows, layout.columns, layout.samples)
    if stated is not None and stated != promised:
        raise ReadError(
            header.name,
            f"its compressed pixels are {_times(stated)}, its header promises {_times(promised)}",
            "Export it again.",
            code="size_mismatch",
        )


def _true_color(header: DicomObject, layout: PixelLayout, frame: bytes) -> str:
    """Photometric interpretation that makes GDCM return RGB; many JPEG files say RGB and hold YCbCr."""
    if header.transfer_syntax not in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit):
        return layout.photometric
    ycbcr = jpeg_is_ycbcr(frame)
    if ycbcr is None:
        return layout.photometric
    return "YBR_FULL" if ycbcr else "RGB"


def _bare_file(header: DicomObject, layout: PixelLayout, frame: bytes) -> bytes:
    """A DICOM file of one frame and nothing else.

    GDCM applies rescale, inverts MONOCHROME1 and maps palettes by itself. It sees none of these here, so that it
    returns the stored values and each step happens once, in `dicom_rendering`.
    """
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = header.transfer_syntax
    file.SOPClassUID = uid.SecondaryCaptureImageStorage
    file.SOPInstanceUID = "2.25.1"
    file.Modality = "OT"
    file.SamplesPerPixel = layout.samples
    file.PhotometricInterpretation = "MONOCHROME2" if layout.samples == 1 else _true_color(header, layout, frame)
    if layout.samples > 1:
        file.PlanarConfiguration = int(layout.planar)
    file.Rows, file.Columns = layout.rows, layout.columns
    file.BitsAllocated, file.BitsStored = layout.bits_allocated, layout.bits_stored
    file.HighBit = layout.high_bit
    file.PixelRepresentation = int(layout.signed)
    file.PixelData = encapsulate([frame])
    file["PixelData"].VR = "OB"
    stream = io.BytesIO()
    with reported(header.name, "preparing its pixels for decoding"):
        pydicom.dcmwrite(stream, file, enforce_file_format=True)
    return stream.getvalue()
