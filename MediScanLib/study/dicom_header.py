"""The header of a DICOM object, read under guard: without its pixels, its private bulk or the patient's name."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from hashlib import blake2b
from typing import BinaryIO

from pydicom import filereader
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, AllTransferSyntaxes, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from ..errors import ReadError
from .dicom_layout import pixel_layout
from .dicom_values import element_text, element_value
from .guards import BoundedInflater, Source, check_memory, reported

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
PIXEL_KEYWORDS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
UNDEFINED_LENGTH = 0xFFFFFFFF

_ENCAPSULATED = frozenset(
    syntax for syntax in AllTransferSyntaxes if syntax.is_encapsulated and syntax != DeflatedExplicitVRLittleEndian
)
_HEADER_LIMIT = 64 * 1024**2  # an honest header, functional groups of thousands of frames included, is far smaller
_SLACK = 1024**2  # what may follow the pixels of a deflated object

# The patient's name is not among them: what is never read cannot leak.
_KEYWORDS = """
SOPClassUID SOPInstanceUID StudyDate AcquisitionDate SeriesDate ContentDate Modality SeriesDescription ImageType
PatientID IssuerOfPatientID PatientBirthDate PatientSex PatientAge StudyInstanceUID SeriesInstanceUID
BodyPartExamined ViewPosition Laterality ImageLaterality
SliceThickness SpacingBetweenSlices ImagePositionPatient ImageOrientationPatient GridFrameOffsetVector
PixelSpacing ImagerPixelSpacing NominalScannedPixelSpacing PixelSpacingCalibrationType PixelAspectRatio
EstimatedRadiographicMagnificationFactor
SamplesPerPixel PhotometricInterpretation PlanarConfiguration NumberOfFrames Rows Columns BitsAllocated BitsStored
HighBit PixelRepresentation PixelPaddingValue PixelPaddingRangeLimit PresentationLUTShape
RescaleIntercept RescaleSlope RescaleType ModalityLUTSequence VOILUTSequence VOILUTFunction WindowCenter WindowWidth
RedPaletteColorLookupTableDescriptor GreenPaletteColorLookupTableDescriptor BluePaletteColorLookupTableDescriptor
RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
SegmentedRedPaletteColorLookupTableData SegmentedGreenPaletteColorLookupTableData
SegmentedBluePaletteColorLookupTableData
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence ExtendedOffsetTable ExtendedOffsetTableLengths
""".split()  # noqa: SIM905  a list of eighty quoted names is harder to read
_TAGS = [tag for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None]


@dataclass(frozen=True)
class DicomObject:
    """A header and the place of its pixels.

    Attributes:
        source: Where it came from.
        dataset: The header elements that MediScan uses.
        transfer_syntax: Encoding of the pixels.
        little_endian: Byte order.
        pixel_keyword: "PixelData", "FloatPixelData", "DoubleFloatPixelData", or None where there are no pixels.
        pixel_vr: Value representation of the pixels, None in implicit encodings.
        pixel_offset: Start of the pixel value in the stream.
        pixel_length: Bytes, or UNDEFINED_LENGTH for encapsulated pixels.
        inflated: The whole decompressed data set of a deflated object.
    """

    source: Source
    dataset: Dataset
    transfer_syntax: UID
    little_endian: bool
    pixel_keyword: str | None
    pixel_vr: str | None
    pixel_offset: int
    pixel_length: int
    inflated: bytes | None = None

    @property
    def name(self) -> str:
        """The file as the user named it."""
        return self.source.name

    @property
    def is_compressed(self) -> bool:
        """True where the pixels are encapsulated frames."""
        return self.pixel_length == UNDEFINED_LENGTH or self.transfer_syntax in _ENCAPSULATED

    @property
    def size(self) -> int:
        """Bytes of the stream that `pixel_offset` points into."""
        return self.source.size if self.inflated is None else len(self.inflated)

    def read_pixels(self, length: int) -> bytes:
        """Up to `length` bytes of the pixel value."""
        stream: BinaryIO = self.source.open() if self.inflated is None else io.BytesIO(self.inflated)
        with stream, reported(self.name, "reading the pixels"):
            stream.seek(self.pixel_offset)
            return stream.read(length)


def looks_like_dicom(head: bytes) -> bool:
    """True for a DICOM file by its first 140 bytes, also one without the 128-byte preamble."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    group, element = int.from_bytes(head[0:2], "little"), int.from_bytes(head[2:4], "little")
    if group not in (0x0002, 0x0008) or element > 0x0070:
        return False
    explicit = re.fullmatch(rb"[A-Z]{2}", head[4:6]) is not None
    return explicit or int.from_bytes(head[4:8], "little") < 1024


def read_header(source: Source, memory_limit: int, *, more: Sequence[str] = ()) -> DicomObject:
    """Read the header of one DICOM object.

    Args:
        source: File or bytes.
        memory_limit: Bytes that this may need.
        more: Keywords of elements to read beside those that an image needs.

    Raises:
        ReadError: truncated, corrupt, too_deep or too_large.
    """
    tags = [*_TAGS, *(tag for tag in map(tag_for_keyword, more) if tag is not None)]
    with source.open() as stream, warnings.catch_warnings(), reported(source.name, "reading the DICOM header"):
        warnings.simplefilter("ignore")  # they quote header values
        if _declared_syntax(stream) == DeflatedExplicitVRLittleEndian:
            return _read_deflated(source, stream, memory_limit, tags)
        stream.seek(0)
        place = _PixelPlace(stream)
        dataset = filereader.read_partial(stream, place, specific_tags=list(tags), force=True)
        syntax = dataset.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian
        media = str(dataset.file_meta.get("MediaStorageSOPClassUID", ""))
        if "SOPClassUID" not in dataset and media == DICOMDIR_CLASS:
            dataset.SOPClassUID = media
        place.check_end(source)
        little_endian = bool(dataset.original_encoding[1])
        return place.found(source, dataset, UID(str(syntax)), little_endian)


class _PixelPlace:
    """Stops pydicom at the pixels and remembers where they are and how far the header reached."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._end = 0
        self.tag: int | None = None
        self.vr: str | None = None
        self.offset = 0
        self.length = 0

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        at = self._stream.tell()
        if int(tag) in PIXEL_KEYWORDS:
            self.tag, self.vr, self.offset, self.length = int(tag), vr, at, length
            return True
        self._end = at + (0 if length == UNDEFINED_LENGTH else length)
        return False

    def check_end(self, source: Source, size: int | None = None) -> None:
        if self.tag is None and self._end > (source.size if size is None else size):
            raise ReadError(
                source.name,
                "ends inside its DICOM header, before any pixels",
                "Copy or export it again.",
                code="truncated",
            )

    def found(
        self, source: Source, dataset: Dataset, syntax: UID, little_endian: bool, inflated: bytes | None = None
    ) -> DicomObject:
        keyword = None if self.tag is None else PIXEL_KEYWORDS[self.tag]
        return DicomObject(
            source, dataset, syntax, little_endian, keyword, self.vr, self.offset, self.length, inflated
        )


def _declared_syntax(stream: BinaryIO) -> str:
    """Transfer syntax of the file meta group, and the stream left at the data set that follows it."""
    if stream.read(132)[128:] != b"DICM":
        return ""
    meta = filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    return str(meta.get("TransferSyntaxUID", ""))


def _read_deflated(source: Source, stream: BinaryIO, memory_limit: int, tags: Sequence[int]) -> DicomObject:
    # pydicom would inflate everything at once: a few hundred KB can hide gigabytes. Here the header comes first
    # and the rest is inflated only as far as the header says that there are pixels.
    inflater = BoundedInflater(stream, source.name, wbits=-15)
    body = inflater.read(_HEADER_LIMIT)
    place, dataset = _parse_inflated(body, tags)
    if place.tag is None and len(body) == _HEADER_LIMIT:
        raise ReadError(
            source.name,
            f"inflates to more than {_HEADER_LIMIT >> 20} MiB before any pixels",
            "Do not use this file.",
            code="too_large",
        )
    place.check_end(source, len(body))
    if place.length not in (0, UNDEFINED_LENGTH):
        layout = pixel_layout(dataset, source.name)
        check_memory(source.name, layout.peak_bytes, memory_limit)
        end = place.offset + min(place.length, layout.native_bytes) + _SLACK
        body += inflater.read(max(0, end - len(body)))
    return place.found(source, dataset, UID(DeflatedExplicitVRLittleEndian), True, body)


def _parse_inflated(body: bytes, tags: Sequence[int]) -> tuple[_PixelPlace, Dataset]:
    stream = io.BytesIO(body)
    place = _PixelPlace(stream)
    dataset = filereader.read_dataset(stream, False, True, stop_when=place, specific_tags=list(tags))
    return place, dataset


def hashed_identifiers(header: DicomObject, *, with_instance: bool) -> dict[str, str]:
    """Identifiers as 128-bit BLAKE2b digests: equal where the plain ones are equal.

    They are pseudonyms, not anonymous: whoever holds a list of candidate identifiers can hash it too.
    """
    plain = {
        "patient": "\\".join(
            str(element_value(header.dataset, key) or "").strip() for key in ("PatientID", "IssuerOfPatientID")
        ),
        "study": str(element_value(header.dataset, "StudyInstanceUID") or ""),
        "series": str(element_value(header.dataset, "SeriesInstanceUID") or ""),
    }
    if with_instance:
        plain["instance"] = str(element_value(header.dataset, "SOPInstanceUID") or "")
    return {
        level: blake2b(text.encode(), digest_size=16, person=b"MediScan").hexdigest()
        for level, text in plain.items()
        if text.strip("\\")
    }


_AGE_UNITS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.2425, "D": 1 / 365.2425, "": 1.0}  # some writers leave out the Y
_OLDEST = 120.0
_STUDY_DATES = ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate")


def prefill(header: DicomObject) -> dict[str, float | str]:
    """Clinical fields that the header states: `age_years` and `sex`.

    Age comes from Patient's Age (PS3.5, AS), else from birth and study date. "000Y" is how files without an age
    are commonly filled, so it counts as unknown; so does anything above 120 years.
    """
    fields: dict[str, float | str] = {}
    age = _stated_age(element_text(header.dataset, "PatientAge")) or _age_between(
        element_text(header.dataset, "PatientBirthDate"),
        next(filter(None, (element_text(header.dataset, key) for key in _STUDY_DATES)), None),
    )
    if age is not None and 0 < age <= _OLDEST:
        fields["age_years"] = age
    sex = element_text(header.dataset, "PatientSex")
    if sex in ("M", "F"):
        fields["sex"] = sex
    return fields


def _stated_age(text: str | None) -> float | None:
    match = re.fullmatch(r"(\d{1,3})([DWMY]?)", text or "")
    if match is None:
        return None
    years = int(match[1]) * _AGE_UNITS[match[2]]
    return round(years, 4) if 0 < years <= _OLDEST else None


def _age_between(birth: str | None, study: str | None) -> float | None:
    born, seen = _date(birth), _date(study)
    if born is None or seen is None or seen < born:
        return None
    return round((seen - born).days / 365.2425, 2)


def _date(text: str | None) -> date | None:
    try:
        return datetime.strptime((text or "").replace(".", "").replace("-", "")[:8], "%Y%m%d").date()
    except ValueError:
        return None
