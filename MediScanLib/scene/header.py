"""What the DICOM header says about a volume node: from the application's database, or from the subject hierarchy."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import slicer
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from ..errors import ReadError
from ..study.dicom_header import DicomObject, hashed_identifiers, prefill, read_header
from ..study.dicom_values import element_numbers, element_text
from ..study.guards import DEFAULT_MEMORY_LIMIT, Source, file_source
from ..study.image import MedicalImage
from .nodes import Node

FACTS = "MediScan.Image"
"""Node attribute that keeps what the voxels and the geometry of a MedicalImage do not say."""

DCMTK_APPROACH = 1
"""Position of "DCMTK" in the list of readers of Slicer's DICOMScalarVolumePlugin."""

_SPACING_KEYWORDS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def header_facts(node: Node) -> dict[str, Any]:
    """Keyword arguments of MedicalImage that the header of a volume node states; empty where nothing is known.

    Beside them `has_spacing` is False where the header gives no length, and `invert_now` is True where the voxels
    are still MONOCHROME1. Slicer's usual reader (GDCM) inverts these on loading, its DCMTK reader does not. The
    header's window counts for the voxels of the file, not for inverted ones, and is left out then.
    """
    header = _from_database(node)
    if header is not None:
        return _facts(header, flat=node.GetImageData().GetDimensions()[2] == 1)
    stored = node.GetAttribute(FACTS)
    if stored:
        return _remembered(stored)
    header = _from_hierarchy(node)
    return {} if header is None else _patient_facts(header)


def remember_facts(node: Node, image: MedicalImage) -> None:
    """Keep on the node what `header_facts` should say about it later."""
    facts = {
        "modality": image.modality,
        "body_part": image.body_part,
        "view": image.view,
        "laterality": image.laterality,
        "units": image.units,
        "window": image.window,
        "inverted": image.inverted,
        "prefill": dict(image.prefill),
        "identifiers": dict(image.identifiers),
        "slice_axis": image.slice_axis,
        "warnings": list(image.warnings),
        "has_spacing": image.spacing is not None,
    }
    node.SetAttribute(FACTS, json.dumps(facts))


def _remembered(stored: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(stored)
    if facts["window"] is not None:
        facts["window"] = tuple(facts["window"])
    return facts


def _facts(header: DicomObject, *, flat: bool) -> dict[str, Any]:
    dataset = header.dataset
    facts = _patient_facts(header)
    facts["body_part"] = element_text(dataset, "BodyPartExamined")
    facts["view"] = element_text(dataset, "ViewPosition")
    laterality = element_text(dataset, "ImageLaterality") or element_text(dataset, "Laterality")
    facts["laterality"] = laterality if laterality in ("L", "R", "B") else None
    facts["identifiers"] = hashed_identifiers(header, with_instance=flat)
    facts["has_spacing"] = not flat or any(element_numbers(dataset, key, 2) for key in _SPACING_KEYWORDS)
    inverted = element_text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
    facts["inverted"] = inverted
    facts["invert_now"] = inverted and _read_by_dcmtk()
    centers, widths = element_numbers(dataset, "WindowCenter"), element_numbers(dataset, "WindowWidth")
    if not inverted and centers and widths and widths[0] > 0:
        facts["window"] = (centers[0], widths[0])
    return facts


def _patient_facts(header: DicomObject) -> dict[str, Any]:
    return {"modality": element_text(header.dataset, "Modality"), "prefill": prefill(header)}


def _from_database(node: Node) -> DicomObject | None:
    """Header of the middle instance; None outside the application and for volumes that are not in the database."""
    database = getattr(slicer, "dicomDatabase", None)
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    if database is None or not instances:
        return None
    file = database.fileForInstance(instances[len(instances) // 2])
    if not file:
        return None
    try:
        return read_header(file_source(Path(file)), DEFAULT_MEMORY_LIMIT)
    except ReadError:  # the file has gone or changed since it was loaded: the voxels are still good
        return None


def source_files(node: Node) -> list[Path]:
    """The DICOM files that a volume was loaded from; none where Slicer's database does not have all of them."""
    database = getattr(slicer, "dicomDatabase", None)
    instances = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    files = [database.fileForInstance(instance) for instance in instances] if database is not None else []
    return [Path(file) for file in files] if files and all(files) else []


def _from_hierarchy(node: Node) -> DicomObject | None:
    """The few attributes that the DICOM module leaves in the subject hierarchy and that survive saving the scene."""
    scene = node.GetScene()
    hierarchy = scene.GetSubjectHierarchyNode() if scene is not None else None
    if hierarchy is None:
        return None
    prefix = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMAttributePrefix()
    dataset = Dataset()
    item = hierarchy.GetItemByDataNode(node)
    while item and item != hierarchy.GetSceneItemID():
        for keyword in ("Modality", "PatientSex", "PatientBirthDate", "StudyDate"):
            value = hierarchy.GetItemAttribute(item, prefix + keyword)
            if value and keyword not in dataset:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # they quote header values
                    setattr(dataset, keyword, value)
        item = hierarchy.GetItemParent(item)
    if len(dataset) == 0:
        return None
    return DicomObject(Source("subject hierarchy", 0), dataset, ImplicitVRLittleEndian, True, None, None, 0, 0)


def _read_by_dcmtk() -> bool:
    application = getattr(slicer, "app", None)
    if application is None:
        return False
    approach = application.userSettings().value("DICOM/ScalarVolume/ReaderApproach")
    return approach is not None and str(approach) == str(DCMTK_APPROACH)
