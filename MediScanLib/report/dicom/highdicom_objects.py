"""What all objects that highdicom builds have in common."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Sequence
from copy import deepcopy
from datetime import datetime
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import MultiFrameTrueColorSecondaryCaptureImageStorage, SecondaryCaptureImageStorage

from ... import __version__
from ...errors import ReportError
from ...prediction.result import Prediction
from .codes import ARTIFICIAL_INTELLIGENCE, OWN_SCHEME, OWN_SCHEME_NAME, Term
from .source import SourceImages
from .uids import ResultUids

MANUFACTURER = "MediScan contributors"
DEIDENTIFICATION_KEYWORDS = (
    *("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence"),
    "LongitudinalTemporalInformationModified",
)
SERIES_NUMBERS = {"sr": 9301, "seg": 9302, "pm": 9303, "sc": 9304}
"""High, so that a viewer lists results after the images."""


NO_DATE = datetime(1900, 1, 1)
"""Stands in a de-identified object where there must be a date."""


def load(module: str = "highdicom") -> ModuleType:
    """A module of highdicom, which is optional.

    Raises:
        ReportError: It is not installed.
    """
    logging.getLogger("highdicom").setLevel(logging.ERROR)  # its warnings quote names of patients
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ReportError(
            'DICOM results need the package highdicom. Install it with pip install "mediscan[dicom]".',
            code="no_highdicom",
        ) from error


def code(term: Term) -> Code:
    """A term as pydicom and highdicom take it."""
    return Code(term.value, term.scheme, term.meaning)


def identity(uids: ResultUids, kind: str, *parts: str) -> dict[str, Any]:
    """Arguments that every constructor takes: UIDs, numbers, who made it."""
    return {
        "series_instance_uid": uids.of(f"{kind} series"),
        "series_number": SERIES_NUMBERS[kind],
        "sop_instance_uid": uids.of(kind, *parts),
        "manufacturer": MANUFACTURER,
    }


def equipment(prediction: Prediction) -> dict[str, Any]:
    """Arguments that name software and model."""
    model = prediction.provenance
    return {
        "manufacturer_model_name": "MediScan",
        "software_versions": [__version__, f"{model.model} {model.model_version}"[:64]],
        "device_serial_number": model.model_sha256[:64],
    }


def algorithm(prediction: Prediction, **parameters: str) -> Any:
    """Algorithm Identification Sequence: the model, its version and the hash of its weights."""
    model = prediction.provenance
    return load().AlgorithmIdentificationSequence(
        name=f"MediScan {model.model}"[:64],
        family=code(ARTIFICIAL_INTELLIGENCE),
        version=model.model_version[:64],
        source=MANUFACTURER,
        parameters={"model_sha256": model.model_sha256, **parameters},
    )


def algorithm_item(prediction: Prediction, *parameters: str | None) -> Any:
    """The same for a structured report (TID 4019)."""
    model = prediction.provenance
    return load("highdicom.sr").AlgorithmIdentification(
        name=f"MediScan {model.model}",
        version=model.model_version,
        parameters=[f"model SHA-256 {model.model_sha256}", *filter(None, parameters)],
        family=code(ARTIFICIAL_INTELLIGENCE),
        manufacturer=MANUFACTURER,
    )


def stand_ins(sources: SourceImages) -> list[Dataset]:
    """The source headers in a form that highdicom takes, with the geometry that MediScan read.

    highdicom copies by tables of the standard's current image classes, and demands what each of them does. So that
    retired and private classes pass too, all pass as one; `finish` puts their true class into the references.
    """
    return [_stand_in(sources, index) for index in range(len(sources.datasets))]


def _stand_in(sources: SourceImages, index: int) -> Dataset:
    dataset = deepcopy(sources.datasets[index])
    dataset.Rows, dataset.Columns = sources.rows, sources.columns
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    if sources.is_multiframe:
        dataset.SOPClassUID = MultiFrameTrueColorSecondaryCaptureImageStorage
        dataset.NumberOfFrames = len(sources.planes)
    if sources.placed:
        dataset.FrameOfReferenceUID = sources.frame_of_reference
        _add_geometry(dataset, sources, index)
    elif "FrameOfReferenceUID" in dataset:  # without a place it places nothing
        del dataset.FrameOfReferenceUID
    return dataset


def _add_geometry(dataset: Dataset, sources: SourceImages, index: int) -> None:
    highdicom = load()
    plane = sources.planes[index]
    assert plane.spacing is not None
    spacing = (plane.spacing[1], plane.spacing[0])
    orientation = (*map(float, plane.along_columns), *map(float, plane.along_rows))
    if sources.is_multiframe:
        shared = Dataset()
        shared.PixelMeasuresSequence = highdicom.PixelMeasuresSequence(
            pixel_spacing=spacing, slice_thickness=plane.thickness or 1.0
        )
        shared.PlaneOrientationSequence = highdicom.PlaneOrientationSequence(
            highdicom.CoordinateSystemNames.PATIENT, orientation
        )
        dataset.SharedFunctionalGroupsSequence = [shared]
        frames = []
        for one in sources.planes:
            frame = Dataset()
            frame.PlanePositionSequence = highdicom.PlanePositionSequence(
                highdicom.CoordinateSystemNames.PATIENT, _numbers(one.position)
            )
            frames.append(frame)
        dataset.PerFrameFunctionalGroupsSequence = frames
        return
    measures = highdicom.PixelMeasuresSequence(pixel_spacing=spacing, slice_thickness=plane.thickness or 1.0)[0]
    dataset.PixelSpacing = measures.PixelSpacing
    dataset.SliceThickness = measures.SliceThickness
    dataset.ImageOrientationPatient = highdicom.PlaneOrientationSequence(
        highdicom.CoordinateSystemNames.PATIENT, orientation
    )[0].ImageOrientationPatient
    dataset.ImagePositionPatient = highdicom.PlanePositionSequence(
        highdicom.CoordinateSystemNames.PATIENT, _numbers(plane.position)
    )[0].ImagePositionPatient


def _numbers(position: npt.NDArray[np.float64] | None) -> tuple[float, ...]:
    assert position is not None
    return tuple(map(float, position))


def finish(made: Dataset, sources: SourceImages, uids: ResultUids, kind: str, when: datetime | None) -> Dataset:
    """Put in what highdicom leaves to chance or does not know: true classes, dates, character set, repeating UIDs.

    Args:
        made: What highdicom built; changed in place.
        sources: The images.
        uids: UIDs of this result.
        kind: Such as "seg".
        when: Time of creation; None keeps it out, with a date that means nothing where there must be one.
    """
    classes = {str(dataset.SOPInstanceUID): str(dataset.SOPClassUID) for dataset in sources.datasets}
    for item in _items(made):
        referenced = str(item.get("ReferencedSOPInstanceUID", ""))
        if referenced in classes:
            item.ReferencedSOPClassUID = classes[referenced]
        if "DimensionOrganizationUID" in item:
            item.DimensionOrganizationUID = uids.of(f"{kind} dimensions")
        if "ContributionDateTime" in item:  # of highdicom itself
            item.ContributionDateTime = f"{when or NO_DATE:%Y%m%d%H%M%S}"
    first = sources.datasets[0]
    for keyword in DEIDENTIFICATION_KEYWORDS:
        if keyword in first:
            made[keyword] = first[keyword]
    if kind in ("pm", "sc"):
        made.Laterality = first.get("Laterality", "")
    if kind == "sc" or (kind != "sr" and not sources.placed):  # elsewhere the frames say where they lie
        made.PatientOrientation = first.get("PatientOrientation")
    made.SpecificCharacterSet = "ISO_IR 192"
    if when is None:
        for keyword in (
            "InstanceCreationDate",
            "InstanceCreationTime",
            "DateOfSecondaryCapture",
            "TimeOfSecondaryCapture",
        ):
            if keyword in made:
                delattr(made, keyword)
    stamp = when or NO_DATE
    for keyword, value in (
        ("InstanceCreationDate", f"{stamp:%Y%m%d}"),
        ("ContentDate", f"{stamp:%Y%m%d}"),
        ("DateOfSecondaryCapture", f"{stamp:%Y%m%d}"),
        ("InstanceCreationTime", f"{stamp:%H%M%S}"),
        ("ContentTime", f"{stamp:%H%M%S}"),
        ("TimeOfSecondaryCapture", f"{stamp:%H%M%S}"),
    ):
        if keyword in made:
            setattr(made, keyword, value)
    return made


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)


def own_scheme(found: Sequence[Term]) -> list[Any]:
    """What MediScan's own coding scheme is, for the header of an object that uses it."""
    if not any(term.scheme == OWN_SCHEME for term in found):
        return []
    return [
        load().coding_schemes.CodingSchemeIdentificationItem(
            OWN_SCHEME, name=OWN_SCHEME_NAME, responsible_organization=MANUFACTURER
        )
    ]
