"""Results and images without what identifies the patient, for research.

The profile is the Basic Application Level Confidentiality Profile of PS3.15 annex E, without options: dates, ages and
descriptions go, UIDs are replaced. It is applied the strict way round: not what the table of that annex lists is taken
out, but only what `_KEPT` lists is left in. What is burnt into the pixels stays; `burned_in_warning` says so.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from ...errors import ReportError
from ...study.dicom_header import DicomObject, read_header
from ...study.dicom_values import element_code, element_value
from ...study.guards import os_error
from ...writing import atomic_write
from .codes import BASIC_PROFILE
from .source import EMPTY_IF_MISSING, SourceImages, text_without_controls

METHOD = "MediScan: PS3.15 Basic Profile, kept by list"
KEY_BYTES = 32

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")

_KEPT_FOR_RESULTS = frozenset(
    (
        *("SOPClassUID", "Modality", "SeriesNumber", "InstanceNumber", "AcquisitionNumber", "Laterality"),
        *("ImageLaterality", "BodyPartExamined", "BurnedInAnnotation", "RecognizableVisualFeatures"),
        *("PatientOrientation", "AnatomicalOrientationType", "LossyImageCompression", "LossyImageCompressionRatio"),
        *("LossyImageCompressionMethod", "Manufacturer", "ManufacturerModelName"),
    )
)

_KEPT = frozenset(
    (
        *_KEPT_FOR_RESULTS,
        *("ImageType", "ViewPosition", "PresentationIntentType", "ConversionType", "PatientPosition"),
        *("SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns"),
        *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelAspectRatio"),
        *("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue", "PixelPaddingRangeLimit"),
        *("RescaleIntercept", "RescaleSlope", "RescaleType", "WindowCenter", "WindowWidth", "VOILUTFunction"),
        *("PresentationLUTShape", "PixelIntensityRelationship", "PixelIntensityRelationshipSign"),
        *("ModalityLUTSequence", "VOILUTSequence", "LUTDescriptor", "LUTData", "ModalityLUTType"),
        *("RedPaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData"),
        *("GreenPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableData"),
        *("BluePaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"),
        *("SegmentedRedPaletteColorLookupTableData", "SegmentedGreenPaletteColorLookupTableData"),
        "SegmentedBluePaletteColorLookupTableData",
        *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelSpacingCalibrationType"),
        *("EstimatedRadiographicMagnificationFactor", "SliceThickness", "SpacingBetweenSlices", "SliceLocation"),
        *("ImagePositionPatient", "ImageOrientationPatient", "GridFrameOffsetVector", "FrameIncrementPointer"),
        *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "PixelMeasuresSequence"),
        *("PlanePositionSequence", "PlaneOrientationSequence", "PixelValueTransformationSequence"),
        *("FrameVOILUTSequence", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
        *("KVP", "ExposureTime", "XRayTubeCurrent", "Exposure", "GantryDetectorTilt", "ReconstructionDiameter"),
        *("DistanceSourceToDetector", "DistanceSourceToPatient", "SpiralPitchFactor", "TableHeight"),
        *("RepetitionTime", "EchoTime", "FlipAngle", "MagneticFieldStrength", "ScanningSequence", "SequenceVariant"),
        *("ScanOptions", "MRAcquisitionType", "EchoTrainLength"),
    )
)
"""No free text, no date, no person, no place, no private element."""


@dataclass(frozen=True)
class Deidentifier:
    """Replaces identifiers by keyed hashes: the same key gives the same pseudonyms, and without it none leads back.

    Attributes:
        key: Secret.
    """

    key: bytes

    @classmethod
    def fresh(cls) -> Deidentifier:
        """With a key that is forgotten after the run: its pseudonyms are those of no other run."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_file(cls, path: Path) -> Deidentifier:
        """With the key of a file, which is made where it is missing, readable for its owner alone.

        Raises:
            ReadError: It cannot be read.
            ReportError: It holds no key.
            WriteError: It cannot be made.
        """
        if not path.exists():
            with atomic_write(path) as stream:
                stream.write((secrets.token_hex(KEY_BYTES) + "\n").encode())
            path.chmod(0o600)
        try:
            text = path.read_bytes()[:1000].decode("ascii", "replace").strip()
        except OSError as error:
            raise os_error(path, error) from None
        if not re.fullmatch(r"[0-9a-f]{64}", text):
            raise ReportError(
                f"{path}: holds no key ({2 * KEY_BYTES} hexadecimal digits). Name a file that is to be made."
            )
        return cls(bytes.fromhex(text))

    def uid(self, original: str) -> UID:
        """The UID in place of another: 2.25 and 128 bits (PS3.5, B.2)."""
        return UID(f"2.25.{int.from_bytes(self._digest('uid', original)[:16], 'big')}")

    def patient(self, header: Dataset) -> str:
        """The patient's pseudonym."""
        plain = "\\".join(str(header.get(keyword, "")).strip() for keyword in ("PatientID", "IssuerOfPatientID"))
        if not plain.strip("\\"):
            plain = f"study {header.get('StudyInstanceUID', '')}"  # patients without an ID are not all the same one
        return f"MS-{self._digest('patient', plain).hex()[:16].upper()}"

    def sources(self, sources: SourceImages) -> SourceImages:
        """The same images under pseudonyms, for results that refer to them."""
        return replace(
            sources,
            datasets=tuple(self._header(dataset, dataset, _KEPT_FOR_RESULTS) for dataset in sources.datasets),
            frame_of_reference=self.uid(sources.frame_of_reference),
        )

    def copy(self, header: DicomObject, taken: Dataset, memory_limit: int) -> Dataset:
        """A copy of an image under pseudonyms.

        Args:
            header: The image.
            taken: What `SourceImages.datasets` holds of it.
            memory_limit: Bytes that reading it may need.

        Raises:
            ReadError: It cannot be read.
        """
        full = read_header(header.source, memory_limit, more=sorted(_KEPT))
        result = self._header(full.dataset, taken, _KEPT)
        syntax = full.transfer_syntax
        length = full.size - full.pixel_offset if full.is_compressed else full.pixel_length
        pixels = full.read_pixels(length)
        if full.is_compressed:
            pixels = pixels[: _fragments_end(pixels)]
        assert full.pixel_keyword is not None
        setattr(result, full.pixel_keyword, pixels)
        element = result[full.pixel_keyword]
        if full.pixel_keyword == "PixelData":
            element.VR = "OB" if full.is_compressed or full.pixel_vr == "OB" else "OW"
            element.is_undefined_length = full.is_compressed
        result.file_meta = FileMetaDataset()
        result.file_meta.TransferSyntaxUID = syntax
        result.file_meta.MediaStorageSOPClassUID = result.SOPClassUID
        result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
        return result

    def _header(self, source: Dataset, taken: Dataset, kept: frozenset[str]) -> Dataset:
        result = _kept_part(source, kept)
        for keyword in _UIDS:
            original = str(taken.get(keyword, "")).strip()
            if original:
                setattr(result, keyword, self.uid(original))
        for keyword in EMPTY_IF_MISSING:
            setattr(result, keyword, "")
        result.PatientID = result.PatientName = self.patient(taken)
        result.PatientIdentityRemoved = "YES"
        result.DeidentificationMethod = METHOD
        method = Dataset()
        method.CodeValue, method.CodingSchemeDesignator = BASIC_PROFILE.value, BASIC_PROFILE.scheme
        method.CodeMeaning = BASIC_PROFILE.meaning
        result.DeidentificationMethodCodeSequence = [method]
        result.LongitudinalTemporalInformationModified = "REMOVED"
        result.SpecificCharacterSet = "ISO_IR 192"
        if "Laterality" not in result and taken.get("Laterality"):
            result.Laterality = taken.Laterality
        if "FrameOfReferenceUID" in result:
            result.PositionReferenceIndicator = ""
        if kept is _KEPT and "ImagePositionPatient" not in result and "PatientOrientation" not in result:
            result.PatientOrientation = ""
        if "Manufacturer" not in result:
            result.Manufacturer = ""
        return result

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.new(self.key, f"{kind}\0{text}".encode(), hashlib.sha256).digest()


def burned_in_warning(sources: SourceImages) -> str | None:
    """What a user must know before passing pixels on; None where the header states that nothing is burnt in."""
    stated = {str(dataset.get("BurnedInAnnotation", "")).upper() for dataset in sources.datasets}
    if stated == {"NO"}:
        return None
    if "YES" in stated:
        return (
            f"{sources.name}: its header says that identifying text is burnt into the pixels. That is not removed: do "
            "not pass on images or pictures."
        )
    return (
        f"{sources.name}: its header does not say whether text is burnt into the pixels, and text there is not "
        "removed. Look at images and pictures before you pass them on."
    )


def _kept_part(source: Dataset, kept: frozenset[str]) -> Dataset:
    """The elements of the list, sequences with what the list has of their items."""
    result = Dataset()
    for keyword in sorted(kept):
        value = element_value(source, keyword)
        if value is None or value == "":
            continue
        if source[keyword].VR == "SQ":
            items = [_kept_part(item, kept) for item in value]
            if any(len(item) for item in items):
                setattr(result, keyword, items)
            continue
        vr = source[keyword].VR
        if vr == "CS" and element_code(source, keyword) is None and isinstance(value, str):
            continue  # free text in place of a code
        if vr in ("LO", "SH") and isinstance(value, str):
            value = text_without_controls(value)
        result.add_new(source[keyword].tag, vr, value)
    return result


def _fragments_end(content: bytes) -> int:
    """Where the last fragment of encapsulated pixels ends."""
    at = 0
    while content[at : at + 4] == b"\xfe\xff\x00\xe0":
        at += 8 + int.from_bytes(content[at + 4 : at + 8], "little")
    return min(at, len(content))
