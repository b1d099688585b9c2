"""`read_image`: any supported file, folder or bytes as a `MedicalImage`. The only way in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import ReadError
from .dicom import read_dicom
from .dicom_header import looks_like_dicom
from .guards import DEFAULT_MEMORY_LIMIT, Source, bytes_source, file_source, reported, status
from .image import MedicalImage
from .raster import read_raster
from .series import read_folder
from .volume_headers import gunzipped_head, is_gzip, sniff_volume
from .volumes import read_volume

_RASTER_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_KNOWN_BUT_NOT_READ = {
    b"GIF8": "a GIF picture",
    b"BM": "a BMP picture",
    b"RIFF": "a WebP picture, a sound or a film",
    b"PK\x03\x04": "a ZIP archive",
    b"%PDF": "a PDF document",
    b"\x00\x00\x00\x0cjP": "a bare JPEG 2000 file",
    b"\xff\x4f\xff\x51": "a bare JPEG 2000 file",
    b"\x89HDF": "an HDF5 file",
}
_SUPPORTED = "Supported are DICOM, NIfTI, NRRD, MetaImage, PNG, JPEG and TIFF."


def read_image(
    source: str | os.PathLike[str] | bytes,
    *,
    series: str | None = None,
    memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT,
    name: str | None = None,
) -> MedicalImage:
    """Read one image: a DICOM file, a folder with a DICOM series, NIfTI, NRRD, MetaImage, PNG, JPEG or TIFF.

    The format is recognized by content, never by file name. How much memory decoding takes is worked out from the
    header and bounded before it happens; compressed DICOM pixels are decoded in a child process.

    Args:
        source: Path of a file or folder, or the content of a file.
        series: For a folder with several DICOM series: SeriesInstanceUID, a prefix that fits only one, or the number
            from the list in the error.
        memory_limit_bytes: What reading may need at its peak.
        name: Stands in errors and in `MedicalImage.source` in place of the path, or for bytes.

    Raises:
        ReadError: With one of `ReadError.CODES`. Nothing else is raised for what a file holds.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _read_file(bytes_source(bytes(source), name), memory_limit_bytes)
    path = Path(source)
    shown = name or str(path)
    if stat.S_ISDIR(status(path, shown).st_mode):
        with reported(shown, "reading the folder"):
            return read_folder(path, shown, series, memory_limit_bytes)
    return _read_file(file_source(path, shown), memory_limit_bytes)


def _read_file(source: Source, memory_limit: int) -> MedicalImage:
    with reported(source.name, "reading the file"):
        head = source.head(352)
        if looks_like_dicom(head):
            return read_dicom(source, memory_limit)
        if head.startswith(_RASTER_STARTS):
            return read_raster(source, memory_limit)
        kind = sniff_volume(gunzipped_head(source) if is_gzip(head) else head)
        if kind is not None and (kind == "NIfTI" or not is_gzip(head)):
            return read_volume(source, kind, memory_limit)
    if is_gzip(head):
        raise ReadError(
            source.name, "is a gzip file, but not of a NIfTI volume", f"Unpack it. {_SUPPORTED}", code="unsupported"
        )
    for start, what in _KNOWN_BUT_NOT_READ.items():
        if head.startswith(start):
            raise ReadError(source.name, f"is {what}", f"Convert or unpack it. {_SUPPORTED}", code="unsupported")
    raise ReadError(source.name, "is not an image that MediScan knows", _SUPPORTED, code="not_an_image")
