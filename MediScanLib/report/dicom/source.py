"""The images that a result belongs to: their checked headers, and where each frame lies in what was read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom.config
from pydicom.dataset import Dataset

from ...errors import ReportError
from ...prediction.result import ImageSummary, Prediction
from ...study.dicom_geometry import Plane, frame_headers, frame_planes, same_orientation, stackable
from ...study.dicom_header import DicomObject, hashed_identifiers, looks_like_dicom, read_header
from ...study.dicom_layout import pixel_layout
from ...study.dicom_values import element_code, element_numbers, element_value
from ...study.guards import DEFAULT_MEMORY_LIMIT, file_source, reported
from ...study.series import choose_series, find_series, without_localizers
from .uids import frame_of_reference_uid

REQUIRED_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
"""Without these nothing can be filed with an image or refer to it."""

PATIENT_KEYWORDS = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("PatientSize", "PatientWeight", "PatientIdentityRemoved", "DeidentificationMethod"),
    *("ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID"),
    *("ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID"),
)
STUDY_KEYWORDS = (
    *("StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "StudyDescription"),
    *("AccessionNumber", "ReferringPhysicianName"),
)
EMPTY_IF_MISSING = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
"""Type 2: always there, possibly without a value (PS3.5, 7.4.3)."""

_IMAGE_KEYWORDS = (
    *("SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Modality", "SeriesNumber", "InstanceNumber"),
    *("AcquisitionNumber", "Manufacturer", "ManufacturerModelName", "SoftwareVersions"),
    *("BurnedInAnnotation", "RecognizableVisualFeatures", "PatientOrientation", "AnatomicalOrientationType"),
    *("Laterality", "ImageLaterality", "BodyPartExamined"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_GEOMETRY_KEYWORDS = ("FrameOfReferenceUID", "PositionReferenceIndicator")
READ_KEYWORDS = ("SpecificCharacterSet", *PATIENT_KEYWORDS, *STUDY_KEYWORDS, *_IMAGE_KEYWORDS, *_GEOMETRY_KEYWORDS)

_SAME_PLACE = 0.01  # mm
_NEAR = 0.51  # of a slice


@dataclass(frozen=True)
class FramePlace:
    """Where a frame lies in the image that was read: image index = scale * pixel of the frame + offset.

    Attributes:
        slice_index: Continuous index of the image's slice.
        rows: (scale, offset).
        columns: (scale, offset).
    """

    slice_index: float
    rows: tuple[float, float]
    columns: tuple[float, float]


@dataclass(frozen=True, eq=False)
class SourceImages:
    """The images of one result.

    Attributes:
        name: As the user named them.
        headers: In the order of the volume.
        datasets: For each header the attributes that results take over, in Unicode.
        planes: One for each frame.
        places: One for each frame.
        rows: Of every frame.
        columns: Of every frame.
        placed: Whether the frames have places in the patient.
        frame_of_reference: Frame of Reference UID; made from the series where the files have none.
    """

    name: str
    headers: tuple[DicomObject, ...]
    datasets: tuple[Dataset, ...]
    planes: tuple[Plane, ...]
    places: tuple[FramePlace, ...]
    rows: int
    columns: int
    placed: bool
    frame_of_reference: str

    @property
    def instance_uids(self) -> list[str]:
        """SOP Instance UIDs."""
        return [str(dataset.SOPInstanceUID) for dataset in self.datasets]

    @property
    def is_multiframe(self) -> bool:
        """One object with several frames."""
        return len(self.datasets) == 1 and len(self.planes) > 1


def source_files(path: Path, series: str | None = None, *, memory_limit: int = DEFAULT_MEMORY_LIMIT) -> list[Path]:
    """The files that `read_image` makes an image of.

    Args:
        path: File, or folder with a DICOM series.
        series: See `read_image`.
        memory_limit: Bytes that reading a header may need.

    Raises:
        ReadError: As `read_image` raises.
    """
    if not path.is_dir():
        return [path]
    found, _ = find_series(path, str(path), memory_limit)
    headers, _ = without_localizers(choose_series(found, series, str(path)).headers)
    return [header.source.path for header in headers if header.source.path is not None]


@contextmanager
def quietly() -> Iterator[None]:
    """Without warnings of pydicom and highdicom: they quote header values, names of patients among them."""
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


@quietly()
def load_sources(
    files: Sequence[Path], prediction: Prediction, *, memory_limit: int = DEFAULT_MEMORY_LIMIT
) -> SourceImages:
    """Read and check the headers of the images that were predicted.

    Raises:
        ReportError: They are no DICOM, lack what a result must refer to, or are others than were predicted.
        ReadError: They cannot be read.
    """
    if not files:
        raise ReportError(
            f"{prediction.input}: no source files were given. Give the DICOM files that were predicted.",
            code="not_dicom",
        )
    name = str(files[0]) if len(files) == 1 else str(files[0].parent)
    headers, _ = without_localizers([_header(path, memory_limit) for path in files])
    if (
        len(
            {str(header.dataset.StudyInstanceUID) + "\0" + str(header.dataset.SeriesInstanceUID) for header in headers}
        )
        > 1
    ):
        raise ReportError(f"{name}: the files are of several series. Give those of one.", code="source_mismatch")
    _check_same(headers, prediction, name)
    headers, planes = _in_order(headers, name)
    with reported(name, "reading the DICOM headers"):
        layout = pixel_layout(headers[0].dataset, headers[0].name)
    places = _places(planes, prediction.image, layout.rows, layout.columns, name)
    placed = all(plane.position is not None and plane.spacing is not None for plane in planes) and stackable(planes)
    taken = tuple(_taken_over(header) for header in headers)
    stated = str(taken[0].get("FrameOfReferenceUID", ""))
    reference = stated if _is_uid(stated) else frame_of_reference_uid(str(taken[0].SeriesInstanceUID))
    return SourceImages(
        name, tuple(headers), taken, tuple(planes), tuple(places), layout.rows, layout.columns, placed, reference
    )


def _header(path: Path, memory_limit: int) -> DicomObject:
    source = file_source(path)
    if not looks_like_dicom(source.head(140)):
        raise ReportError(
            f"{path}: is not DICOM, so there is no study to put DICOM results in. Predict the DICOM original, or "
            "write results of another kind.",
            code="not_dicom",
        )
    header = read_header(source, memory_limit, more=READ_KEYWORDS)
    for keyword in REQUIRED_UIDS:
        if not _is_uid(element_value(header.dataset, keyword)):
            missing = "no" if element_value(header.dataset, keyword) in (None, "") else "no valid"
            raise ReportError(
                f"{path}: its header has {missing} {keyword}, which a result must repeat or refer to. Export it again "
                "from the archive, or have it given one.",
                code="missing_uid",
            )
    return header


def _is_uid(value: object) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)*", str(value or "").strip()) is not None and len(str(value).strip()) <= 64


def _check_same(headers: Sequence[DicomObject], prediction: Prediction, name: str) -> None:
    """Results must not end in another patient's study."""
    stated = hashed_identifiers(headers[0], with_instance=len(headers) == 1)
    predicted = prediction.image.identifiers
    differing = [level for level in stated if level in predicted and predicted[level] != stated[level]]
    if differing:
        raise ReportError(
            f"{name}: is not what was predicted ({prediction.input}): another {' and another '.join(differing)}. "
            "Give the files that were predicted.",
            code="source_mismatch",
        )


def _in_order(headers: list[DicomObject], name: str) -> tuple[list[DicomObject], list[Plane]]:
    """The files in the order of their volume, each place once, and the plane of each frame."""
    with reported(name, "reading the DICOM headers"):
        found = []
        for header in headers:
            layout = pixel_layout(header.dataset, header.name)
            found.append(frame_planes(header.dataset, frame_headers(header.dataset, layout.frames))[0])
    if len(headers) == 1:
        return headers, found[0]
    planes = [planes[0] for planes in found]
    if any(len(planes) > 1 for planes in found) or any(plane.position is None for plane in planes):
        raise ReportError(f"{name}: its files are not the slices of one volume.", code="source_mismatch")
    order: list[int] = []
    for index in np.argsort([plane.distance for plane in planes], kind="stable"):
        if not order or planes[index].distance - planes[order[-1]].distance > _SAME_PLACE:
            order.append(int(index))
    return [headers[index] for index in order], [planes[index] for index in order]


def _places(planes: Sequence[Plane], image: ImageSummary, rows: int, columns: int, name: str) -> list[FramePlace]:
    """Where the frames lie in the image; see `stacking.stack` for what is done to slices on their way into it."""
    slices, height, width = image.shape
    if len(planes) > 1 and image.spacing is not None and stackable(planes):
        direction = np.asarray(image.direction, dtype=np.float64).reshape(3, 3)
        to_index = np.linalg.inv(direction * np.asarray(image.spacing))
        across, down = Plane(direction[:, 0], direction[:, 1], None, None, None), planes[0]
        places = []
        for plane in planes:
            column, row, slice_ = to_index @ (np.asarray(plane.position) - np.asarray(image.origin))
            assert plane.spacing is not None
            places.append(
                FramePlace(
                    float(slice_),
                    (plane.spacing[1] / image.spacing[1], float(row)),
                    (plane.spacing[0] / image.spacing[0], float(column)),
                )
            )
        inside = all(-_NEAR < place.slice_index < slices - 1 + _NEAR for place in places)
        if inside and same_orientation(across, down):
            return places
    elif len(planes) == slices:
        vertical, horizontal = height / rows, width / columns  # other than 1 where pixels were made square
        down_, right = (vertical, (vertical - 1) / 2), (horizontal, (horizontal - 1) / 2)
        return [FramePlace(float(index), down_, right) for index in range(slices)]
    raise ReportError(
        f"{name}: its {len(planes)} frames of {rows} x {columns} pixels are not the image that was predicted "
        f"({slices} x {height} x {width}). Give the files that were predicted.",
        code="source_mismatch",
    )


def _taken_over(header: DicomObject) -> Dataset:
    """The attributes that results take over, as plain text in Unicode, without anything that cannot be read."""
    result = Dataset()
    result.SpecificCharacterSet = "ISO_IR 192"
    for keyword in (*PATIENT_KEYWORDS, *STUDY_KEYWORDS, *_IMAGE_KEYWORDS, *_GEOMETRY_KEYWORDS):
        value = _plain(element_value(header.dataset, keyword))
        if value:
            setattr(result, keyword, value)
    for keyword in ("PatientBirthDate", "StudyDate"):
        if not _parses(str(result.get(keyword, "")), "%Y%m%d"):
            setattr(result, keyword, "")
    if not re.fullmatch(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?", str(result.get("StudyTime", ""))):
        result.StudyTime = ""
    if result.get("PatientSex") not in ("M", "F", "O"):
        result.PatientSex = ""
    for keyword in EMPTY_IF_MISSING:
        if keyword not in result:
            setattr(result, keyword, "")
    for keyword in ("BurnedInAnnotation", "RecognizableVisualFeatures", "PatientIdentityRemoved"):
        if keyword in result and element_code(result, keyword) not in ("YES", "NO"):
            delattr(result, keyword)
    if result.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethod" not in result:
        result.DeidentificationMethod = "Not stated by the source"
    if result.get("Laterality") not in ("L", "R"):
        result.Laterality = ""
    orientation = result.get("PatientOrientation")
    if "PatientOrientation" in result and (isinstance(orientation, str) or len(orientation) != 2):
        del result.PatientOrientation
    if "PatientAge" in result and not re.fullmatch(r"\d{3}[DWMY]", str(result.PatientAge)):
        del result.PatientAge
    for keyword in ("PatientSize", "PatientWeight", "LossyImageCompressionRatio", "SeriesNumber", "InstanceNumber"):
        if keyword in result and element_numbers(result, keyword) is None:
            delattr(result, keyword)
    return result


def _plain(value: object) -> object:
    """A value without control characters; lists stay lists, names become text."""
    if value is None or isinstance(value, bytes | bytearray):
        return None
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple) or (
        hasattr(value, "__iter__") and not isinstance(value, str) and not hasattr(value, "components")
    ):
        return [_plain(item) for item in value]
    return text_without_controls(str(value))


def text_without_controls(text: str) -> str:
    """The printable part of a text."""
    return "".join(character for character in text if character.isprintable()).strip()


def _parses(text: str, pattern: str) -> bool:
    try:
        datetime.strptime(text, pattern)
    except ValueError:
        return False
    return True


def pixel_spacing(plane: Plane) -> npt.NDArray[np.float64]:
    """(between rows, between columns), the order of Pixel Spacing."""
    assert plane.spacing is not None
    return np.asarray(plane.spacing[::-1], dtype=np.float64)
