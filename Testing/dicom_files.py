"""DICOM studies with a patient, made for tests of what is filed in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset

PATIENT = {
    "PatientName": "Doe^Jane^Quux",
    "PatientID": "SECRET-4711",
    "IssuerOfPatientID": "HOSPITAL-X",
    "PatientBirthDate": "19570321",
    "PatientSex": "F",
    "PatientAge": "067Y",
    "StudyDate": "20240506",
    "StudyTime": "131415",
    "StudyID": "STUDYNO42",
    "StudyDescription": "Thorax pa Dr Whom",
    "AccessionNumber": "ACC987654",
    "ReferringPhysicianName": "Whom^Doctor",
    "InstitutionName": "General Hospital of Nowhere",
    "PatientComments": "knows the mayor",
    "DeviceSerialNumber": "SN-778899",
}


def study_dataset(pixels: np.ndarray, **elements) -> Dataset:
    """A CR image of (row, column) uint8 or uint16 pixels; elements that are None are taken out."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = elements.pop("TransferSyntaxUID", uid.ExplicitVRLittleEndian)
    ds.SOPClassUID = uid.ComputedRadiographyImageStorage
    ds.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1.1"
    ds.SeriesInstanceUID = "1.2.826.0.1.3680043.8.498.1.2"
    ds.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.1.3"
    ds.Modality, ds.BodyPartExamined, ds.ViewPosition = "CR", "CHEST", "PA"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.Rows, ds.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        ds.NumberOfFrames = len(pixels)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
    ds.HighBit, ds.PixelRepresentation = ds.BitsStored - 1, 0
    ds.PixelSpacing = ds.ImagerPixelSpacing = [0.2, 0.2]
    ds.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in {**PATIENT, **elements}.items():
        if value is not None:
            setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    return ds


def write_study(path: Path, pixels: np.ndarray | None = None, **elements) -> Path:
    """One radiograph, bright in the upper left quarter where no pixels are given."""
    if pixels is None:
        pixels = np.full((120, 100), 20, np.uint8)
        pixels[:60, :50] = 220
    path.parent.mkdir(parents=True, exist_ok=True)
    study_dataset(pixels, **elements).save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    volume: np.ndarray,
    positions: Sequence[Sequence[float]],
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (1.0, 1.0),
    **elements,
) -> Path:
    """A CT series of (slice, row, column) HU; `spacing` is (between rows, between columns)."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (image, position) in enumerate(zip(volume, positions, strict=True)):
        facts = {
            "SOPClassUID": uid.CTImageStorage,
            "SOPInstanceUID": f"1.2.826.0.1.3680043.8.498.2.{index + 1}",
            "FrameOfReferenceUID": "1.2.826.0.1.3680043.8.498.2",
            "Modality": "CT",
            "ViewPosition": None,
            "ImagerPixelSpacing": None,
            "ImagePositionPatient": [float(f"{value:.8g}") for value in position],
            "ImageOrientationPatient": [float(f"{value:.10g}") for value in orientation],
            "PixelSpacing": list(spacing),
            "SliceThickness": 2,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "InstanceNumber": index + 1,
        }
        write_study(
            folder / f"{(index * 7919) % 10007:05d}.dcm",
            (np.rint(image) + 1024).astype(np.uint16),
            **{**facts, **elements},
        )
    return folder
