"""NIfTI, NRRD and MetaImage through SimpleITK, after their headers were checked against the bytes that are there."""

from __future__ import annotations

import math
import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK

from ..errors import ReadError
from .guards import BoundedInflater, Source, check_memory, file_source, finite_float32, reported
from .image import MedicalImage
from .luminance import luminance

Kind = Literal["NIfTI", "NRRD", "MetaImage"]

_TEXT_HEADER_LIMIT = 1 << 20
_GZIP = 31
_NIFTI_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 128: 3, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}  # datatype: bytes
_NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "signed long long int"), 8),
    **dict.fromkeys(("int64", "int64_t", "ulonglong", "unsigned long long", "unsigned long long int"), 8),
    **dict.fromkeys(("uint64", "uint64_t", "double"), 8),
    "float": 4,
}
_META_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_LONG": 4,
    "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4, "MET_DOUBLE": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Promise:
    """What a header says about its pixels.

    Attributes:
        sizes: Length of each axis, the fastest first.
        element: Bytes a pixel.
        data: File name of detached pixels, None where they follow the header.
        offset: Where the pixels start in the (decompressed) file.
        encoding: "raw", "gzip", "zlib" or another word of the format.
    """

    sizes: tuple[int, ...]
    element: int
    data: str | None = None
    offset: int = 0
    encoding: str = "raw"

    @property
    def bytes(self) -> int:
        """Bytes of the uncompressed pixels."""
        return math.prod(self.sizes) * self.element


def sniff_volume(head: bytes) -> Kind | None:
    """Which of the three formats a (decompressed) file starts like, by its first 352 bytes."""
    if head.startswith(b"NRRD000"):
        return "NRRD"
    if head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2"):
        return "NIfTI"
    if re.match(rb"\s*(ObjectType|NDims)\s*=", head):
        return "MetaImage"
    return None


def is_gzip(head: bytes) -> bool:
    """True for a gzip file."""
    return head.startswith(b"\x1f\x8b")


def gunzipped_head(source: Source, length: int = 352) -> bytes:
    """The first bytes inside a gzip file, none where it is damaged."""
    with source.open() as stream:
        try:
            return BoundedInflater(stream, source.name, _GZIP).read(length)
        except ReadError:
            return b""


def read_volume(source: Source, kind: Kind, memory_limit: int) -> MedicalImage:
    """Read a volume.

    Args:
        source: File or bytes.
        kind: What `sniff_volume` said.
        memory_limit: Bytes that this may need.

    Raises:
        ReadError: truncated, corrupt, empty, too_large, unsupported, geometry or not_finite.
    """
    name = source.name
    with reported(name, f"reading the {kind} header"):
        promise = {"NIfTI": _nifti, "NRRD": _nrrd, "MetaImage": _meta}[kind](source)
    if not promise.sizes or min(promise.sizes) < 1:
        raise ReadError(name, f"its header promises {_times(promise.sizes)} pixels", "Export it again.", code="empty")
    check_memory(name, promise.bytes + 2 * 4 * math.prod(promise.sizes), memory_limit)
    detached = _detached(source, promise)
    _check_bytes(detached or source, promise, kind)
    with _readable(source, kind, promise, detached) as path:
        return _read(path, source, kind, promise)


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))


def _nifti(source: Source) -> Promise:
    """NIfTI-1 and NIfTI-2 headers."""
    gzipped = is_gzip(source.head(2))
    with source.open() as stream:
        head = BoundedInflater(stream, source.name, _GZIP).read(540) if gzipped else stream.read(540)
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", head)
        if size == 348:
            dims = struct.unpack_from(f"{order}8h", head, 40)
            (code,), (offset,) = struct.unpack_from(f"{order}h", head, 70), struct.unpack_from(f"{order}f", head, 108)
            magic = head[344:348]
            break
        if size == 540:
            dims = struct.unpack_from(f"{order}8q", head, 16)
            (code,), (offset,) = struct.unpack_from(f"{order}h", head, 12), struct.unpack_from(f"{order}q", head, 168)
            magic = head[4:8]
            break
    else:
        raise ReadError(source.name, "its NIfTI header has a wrong size", "Export it again.", code="corrupt")
    if not magic.startswith(b"n+"):
        raise ReadError(
            source.name, "is one half of a NIfTI pair", "Save it as one .nii or .nii.gz file.", code="unsupported"
        )
    if code not in _NIFTI_BYTES:
        raise ReadError(
            source.name, f"has the NIfTI data type {code}", "Save it as integers or float.", code="unsupported"
        )
    if not 1 <= dims[0] <= 7 or not 0 <= offset < 1 << 30:
        raise ReadError(source.name, "its NIfTI header contradicts itself", "Export it again.", code="corrupt")
    return Promise(
        tuple(int(size) for size in dims[1 : dims[0] + 1]),
        _NIFTI_BYTES[code],
        offset=int(offset),
        encoding="gzip" if gzipped else "raw",
    )


def _text_header(source: Source, separator: str, last: str) -> tuple[dict[str, str], int]:
    """Fields of a text header by lower-case name, and its length; it ends at an empty line or after field `last`."""
    fields: dict[str, str] = {}
    length = 0
    with source.open() as stream:
        while length < _TEXT_HEADER_LIMIT:
            line = stream.readline(_TEXT_HEADER_LIMIT)
            length += len(line)
            text = line.decode("latin-1").strip()
            if not text:
                return fields, length
            key, found, value = text.partition(separator)
            if found and not text.startswith("#"):
                fields[key.strip().lower()] = value.strip().lstrip("=")
                if key.strip().lower() == last:
                    return fields, length
    raise ReadError(source.name, "its header has no end", "Export it again.", code="corrupt")


def _nrrd(source: Source) -> Promise:
    fields, length = _text_header(source, ":", last="")
    kind = fields["type"].strip().lower()
    if kind not in _NRRD_BYTES:
        raise ReadError(
            source.name, f"has the NRRD type {kind!r}", "Save it as integers or float.", code="unsupported"
        )
    if any(
        fields.get(key, "0").strip() not in ("0", "-1") for key in ("byte skip", "line skip", "byteskip", "lineskip")
    ):
        raise ReadError(source.name, "skips parts of its data file", "Save it as one .nrrd file.", code="unsupported")
    encoding = fields["encoding"].strip().lower()
    return Promise(
        tuple(int(size) for size in fields["sizes"].split()),
        _NRRD_BYTES[kind],
        fields.get("data file", fields.get("datafile")),
        length,
        "gzip" if encoding == "gz" else encoding,
    )


def _meta(source: Source) -> Promise:
    fields, length = _text_header(source, "=", last="elementdatafile")
    kind = fields["elementtype"].upper()
    if kind not in _META_BYTES:
        raise ReadError(
            source.name, f"has the MetaImage type {kind!r}", "Save it as integers or float.", code="unsupported"
        )
    if fields.get("binarydata", "true").lower() != "true":
        raise ReadError(source.name, "keeps its pixels as text", "Save it as binary.", code="unsupported")
    data = fields["elementdatafile"]
    return Promise(
        tuple(int(size) for size in fields["dimsize"].split()),
        _META_BYTES[kind] * int(fields.get("elementnumberofchannels", "1")),
        None if data.upper() == "LOCAL" else data,
        length,
        "zlib" if fields.get("compresseddata", "false").lower() == "true" else "raw",
    )


def _detached(source: Source, promise: Promise) -> Source | None:
    """The file with the pixels where they are detached: a plain name in the header's own folder and nothing else."""
    if promise.data is None:
        return None
    if source.path is None:
        raise ReadError(
            source.name, "keeps its pixels in another file", "Send one file that holds both.", code="unsupported"
        )
    plain = promise.data.removeprefix("./")
    folder = source.path.parent.resolve()
    inside = plain not in ("", ".", "..") and not re.search(r"[/\\:%\s]|^LIST", plain)
    target = folder / plain
    if not inside or target.resolve().parent != folder:
        raise ReadError(
            source.name,
            "asks for pixels outside of its own folder, or in several files",
            "Put the data file beside it, or save it as one file.",
            code="unsupported",
        )
    try:
        return file_source(target, f"{source.name} -> {plain}")
    except ReadError as error:
        raise ReadError(source.name, f"its data file {error.problem}", "Copy both files.", code=error.code) from None


def _check_bytes(holder: Source, promise: Promise, kind: Kind) -> None:
    """Compare the promised pixels with the bytes that are there, compressed ones by a bounded decompression."""
    start = 0 if promise.data is not None else promise.offset
    if promise.encoding in ("gzip", "zlib"):
        with holder.open() as stream:
            if kind != "NIfTI":
                stream.seek(start)
                start = 0
            inflater = BoundedInflater(stream, holder.name, _GZIP if promise.encoding == "gzip" else 15)
            missing = start + promise.bytes
            while missing > 0 and (piece := inflater.read(min(missing, 1 << 22))):
                missing -= len(piece)
        there = start + promise.bytes - missing
    elif promise.encoding == "raw":
        there = holder.size
    elif promise.encoding in ("ascii", "text", "txt"):
        there = start + promise.bytes if holder.size - start >= 2 * math.prod(promise.sizes) - 1 else holder.size
    else:
        raise ReadError(
            holder.name, f"is encoded as {promise.encoding!r}", "Save it as raw or gzip.", code="unsupported"
        )
    if there < start + promise.bytes:
        raise ReadError(
            holder.name,
            f"its header promises {_times(promise.sizes)} pixels ({promise.bytes} bytes), "
            f"{max(0, there - start)} bytes are there",
            "Copy or export it again.",
            code="truncated",
        )


@contextmanager
def _readable(source: Source, kind: Kind, promise: Promise, detached: Source | None) -> Iterator[Path]:
    """A path with an ending that SimpleITK knows: the file itself, or a link or copy in a temporary folder."""
    ending = {"NIfTI": ".nii", "NRRD": ".nrrd" if detached is None else ".nhdr", "MetaImage": ".mha"}[kind]
    if kind == "NIfTI" and promise.encoding == "gzip":
        ending += ".gz"
    if kind == "MetaImage" and detached is not None:
        ending = ".mhd"
    if source.path is not None and (detached is not None or source.path.name.endswith(ending)):
        yield source.path
        return
    with tempfile.TemporaryDirectory(prefix="mediscan-") as folder:
        path = Path(folder) / f"volume{ending}"
        with source.open() as stream, path.open("wb") as copy:
            while piece := stream.read(1 << 22):
                copy.write(piece)
        yield path


def _read(path: Path, source: Source, kind: Kind, promise: Promise) -> MedicalImage:
    name = source.name
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO({"NIfTI": "NiftiImageIO", "NRRD": "NrrdImageIO", "MetaImage": "MetaImageIO"}[kind])
    reader.SetFileName(str(path))
    notes: list[str] = []
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        reader.ReadImageInformation()
        size = list(reader.GetSize())
        if len(size) > 3 and math.prod(size[3:]) > 1:
            notes.append(f"It holds {math.prod(size[3:])} volumes; the first was read.")
        if len(size) > 3:
            reader.SetExtractSize(size[:3] + [0] * (len(size) - 3))
        image = reader.Execute()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise ReadError(
                name,
                "its axes are not perpendicular (sheared)",
                "Resample it to a regular grid.",
                code="geometry",
            ) from None
        raise ReadError(name, f"is a damaged {kind} file", "Export it again.", code="corrupt") from None
    except MemoryError:
        raise ReadError(name, "needs more memory than there is", "Crop or resample it.", code="too_large") from None
    array = SimpleITK.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    color = channels in (3, 4)
    if channels > 1:
        if not color or array.dtype != np.uint8:
            raise ReadError(name, f"has {channels} values a pixel", "Save one of them.", code="unsupported")
        array = luminance(array)
    flat = image.GetDimension() == 2
    pixels, more = finite_float32(array[np.newaxis] if flat else array, name)
    direction = np.eye(3)
    dimension = image.GetDimension()
    direction[:dimension, :dimension] = np.reshape(image.GetDirection(), (dimension, dimension))
    if not np.allclose(direction @ direction.T, np.eye(3), atol=1e-3):
        raise ReadError(
            name, "its axes are not perpendicular (sheared)", "Resample it to a regular grid.", code="geometry"
        )
    spacing, origin = (*image.GetSpacing(), 1.0)[:3], (*image.GetOrigin(), 0.0)[:3]
    if not all(math.isfinite(value) for value in (*spacing, *origin)) or min(spacing) <= 0:
        raise ReadError(name, "its spacing or origin is not a number", "Export it again.", code="geometry")
    return MedicalImage(
        pixels=pixels,
        spacing=(spacing[0], spacing[1], spacing[2]),
        origin=(origin[0], origin[1], origin[2]),
        direction=tuple(float(value) for value in direction.ravel()),
        color=color,
        reader=f"SimpleITK {SimpleITK.__version__} ({kind})",
        source=name,
        warnings=(*notes, *more),
    )
