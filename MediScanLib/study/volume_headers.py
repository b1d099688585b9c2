"""What the headers of NIfTI, NRRD and MetaImage promise, read without their readers."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import Literal

from ..errors import ReadError
from .guards import BoundedInflater, Source, reported

Kind = Literal["NIfTI", "NRRD", "MetaImage"]

_TEXT_HEADER_LIMIT = 1 << 20
_NIFTI_PIXELS_FROM = 1 << 26  # extensions of honest headers end long before; all of it is inflated at once
GZIP_BITS = 31
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
        floating: NumPy data type of NIfTI pixels that may hold NaN, which its reader would turn to 0 in silence.
        has_spacing: False where the header gives no distance between pixels, for which its reader would take 1 mm.
    """

    sizes: tuple[int, ...]
    element: int
    data: str | None = None
    offset: int = 0
    encoding: str = "raw"
    floating: str | None = None
    has_spacing: bool = True

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
    """The first bytes inside a gzip file.

    Raises:
        ReadError: corrupt or truncated.
    """
    with source.open() as stream:
        return BoundedInflater(stream, source.name, GZIP_BITS).read(length)


def read_promise(source: Source, kind: Kind) -> Promise:
    """Read the header.

    Raises:
        ReadError: corrupt, empty or unsupported.
    """
    with reported(source.name, f"reading the {kind} header"):
        promise = {"NIfTI": _nifti, "NRRD": _nrrd, "MetaImage": _meta}[kind](source)
    if not promise.sizes or min(promise.sizes) < 1:
        raise ReadError(
            source.name, f"its header promises {times(promise.sizes)} pixels", "Export it again.", code="empty"
        )
    return promise


def times(sizes: tuple[int, ...]) -> str:
    """Sizes as a person writes them."""
    return " x ".join(map(str, sizes))


def _nifti(source: Source) -> Promise:
    """NIfTI-1 header."""
    gzipped = is_gzip(source.head(2))
    with source.open() as stream:
        head = BoundedInflater(stream, source.name, GZIP_BITS).read(348) if gzipped else stream.read(348)
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", head)
        if size == 348:
            dims = struct.unpack_from(f"{order}8h", head, 40)
            (code,), (offset,) = struct.unpack_from(f"{order}h", head, 70), struct.unpack_from(f"{order}f", head, 108)
            magic = head[344:348]
            break
        if size == 540:
            raise ReadError(source.name, "is a NIfTI-2 file", "Save it as NIfTI-1 or NRRD.", code="unsupported")
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
    if not 1 <= dims[0] <= 7 or not 0 <= offset <= _NIFTI_PIXELS_FROM:
        raise ReadError(source.name, "its NIfTI header contradicts itself", "Export it again.", code="corrupt")
    return Promise(
        tuple(int(size) for size in dims[1 : dims[0] + 1]),
        _NIFTI_BYTES[code],
        offset=int(offset),
        encoding="gzip" if gzipped else "raw",
        floating={16: f"{order}f4", 64: f"{order}f8"}.get(code),
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
        has_spacing="spacings" in fields or "space directions" in fields,
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
    if fields.get("headersize", "0") not in ("0", "-1"):
        raise ReadError(source.name, "skips parts of its data file", "Save it as one .mha file.", code="unsupported")
    data = fields["elementdatafile"]
    return Promise(
        tuple(int(size) for size in fields["dimsize"].split()),
        _META_BYTES[kind] * int(fields.get("elementnumberofchannels", "1")),
        None if data.upper() == "LOCAL" else data,
        length,
        "zlib" if fields.get("compresseddata", "false").lower() == "true" else "raw",
        has_spacing="elementspacing" in fields or "elementsize" in fields,
    )
