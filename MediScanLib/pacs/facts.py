"""What this node needs to know of an object that came in; of the patient only whether there is an ID."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ReadError
from ..report.dicom.highdicom_objects import MANUFACTURER
from ..study.dicom_header import DicomObject, looks_like_dicom, read_header
from ..study.dicom_values import element_number, element_numbers, element_text, element_value
from ..study.guards import file_source, reported
from ..study.image import RADIOGRAPH_MODALITIES
from .problems import NotForUsError, PacsError

HEADER_MEMORY = 1024**3
"""Bytes that reading a header may take."""

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_NO_IMAGES = {
    *("SR", "SEG", "PR", "KO", "DOC", "REG", "FID", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "ECG", "HD", "AU"),
    *("PLAN", "M3D", "STAIN", "SMR", "RWV", "ANN"),
}
_PARAMETRIC_MAP = "1.2.840.10008.5.1.4.1.1.30"
_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
_MORE = ("StudyDescription", "Manufacturer", "SpecificCharacterSet")


@dataclass(frozen=True)
class Facts:
    """One image. Texts are in upper case, and empty where the header has none.

    Attributes:
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        uid: SOPInstanceUID.
        sop_class: SOPClassUID.
        modality: DICOM modality.
        body_part: Body Part Examined.
        view: View Position.
        study_description: Study Description.
        series_description: Series Description.
        manufacturer: Manufacturer of the device.
        has_patient_id: Whether there is a Patient ID.
        is_slice: Whether it is one slice of a volume, and not an image by itself.
    """

    study_uid: str
    series_uid: str
    uid: str
    sop_class: str
    modality: str
    body_part: str
    view: str
    study_description: str
    series_description: str
    manufacturer: str
    has_patient_id: bool
    is_slice: bool

    @property
    def is_secondary_capture(self) -> bool:
        """A picture of an image, most of the time."""
        return self.sop_class == _SECONDARY_CAPTURE or self.sop_class.startswith(f"{_SECONDARY_CAPTURE}.")

    def to_dict(self) -> dict[str, str | bool]:
        """For JSON."""
        return asdict(self)


def read_facts(path: Path, name: str) -> Facts:
    """What a file says of itself. The header is read under the guards of `study`; its pixels are not looked at.

    Args:
        path: The file.
        name: Stands in errors.

    Raises:
        NotForUsError: It is no image, or was made by MediScan.
        PacsError: A UID is missing that a result would have to refer to.
        ReadError: The header cannot be read.
    """
    source = file_source(path, name)
    if not looks_like_dicom(source.head(140)):
        raise ReadError(name, "is not DICOM", "Send it again.", code="not_an_image")
    header = read_header(source, HEADER_MEMORY, more=_MORE)
    with reported(name, "reading the DICOM header"):  # values are parsed only once they are asked for
        return _facts(header, name)


def _facts(header: DicomObject, name: str) -> Facts:
    dataset = header.dataset

    def text(keyword: str) -> str:
        return (element_text(dataset, keyword) or "")[:200]

    def uid(keyword: str) -> str:
        found = str(element_value(dataset, keyword) or "").strip()
        if not is_uid(found):
            raise PacsError(
                f"{name}: has no valid {keyword}, which every result must refer to. Have its device or archive give "
                "it one and send it again.",
                code="missing_uid",
            )
        return found

    modality, sop_class = text("Modality"), str(element_value(dataset, "SOPClassUID") or "").strip()
    if text("Manufacturer") == MANUFACTURER.upper():
        raise NotForUsError(f"{name}: is a result of MediScan.")
    if modality in _NO_IMAGES or sop_class == _PARAMETRIC_MAP or sop_class in _SEGMENTATIONS:
        raise NotForUsError(f"{name}: is no image to predict.")
    if header.pixel_keyword is None and "Rows" not in dataset:
        raise NotForUsError(f"{name}: holds no image.")
    single = (element_number(dataset, "NumberOfFrames") or 1) == 1
    placed = element_numbers(dataset, "ImagePositionPatient", 3) is not None
    return Facts(
        study_uid=uid("StudyInstanceUID"),
        series_uid=uid("SeriesInstanceUID"),
        uid=uid("SOPInstanceUID"),
        sop_class=uid("SOPClassUID"),
        modality=modality,
        body_part=text("BodyPartExamined"),
        view=text("ViewPosition"),
        study_description=text("StudyDescription"),
        series_description=text("SeriesDescription"),
        manufacturer=text("Manufacturer"),
        has_patient_id=bool(text("PatientID")),
        is_slice=single and placed and modality not in RADIOGRAPH_MODALITIES,
    )


def is_uid(text: str) -> bool:
    """Whether a text is a UID (PS3.5, 9.1)."""
    return len(text) <= 64 and re.fullmatch(r"[0-9]+(\.[0-9]+)*", text) is not None
