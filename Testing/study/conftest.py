"""Small DICOM objects made for the tests."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

PATIENT = {"PatientName": "Doe^Jane", "PatientID": "SECRET-4711"}


def dicom_dataset(pixels: np.ndarray | None, frames: list[bytes] | None = None, **elements) -> Dataset:
    """A data set around `pixels` ((frames,) rows, columns(, 3)), or compressed `frames` that they describe."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = elements.pop("TransferSyntaxUID", uid.ExplicitVRLittleEndian)
    ds.SOPClassUID = uid.SecondaryCaptureImageStorage
    ds.SOPInstanceUID = uid.generate_uid()
    ds.StudyInstanceUID = "1.2.3"
    ds.SeriesInstanceUID = "1.2.3.4"
    ds.Modality = "OT"
    for keyword, value in PATIENT.items():
        setattr(ds, keyword, value)
    if pixels is not None:
        color = pixels.ndim > 2 and pixels.shape[-1] == 3
        shape = pixels.shape[:-1] if color else pixels.shape
        ds.Rows, ds.Columns = shape[-2:]
        if len(shape) == 3:
            ds.NumberOfFrames = shape[0]
        ds.SamplesPerPixel = 3 if color else 1
        if color:
            ds.PlanarConfiguration = 0
        ds.PhotometricInterpretation = "RGB" if color else "MONOCHROME2"
        ds.BitsAllocated = ds.BitsStored = 8 * pixels.dtype.itemsize
        ds.HighBit = ds.BitsStored - 1
        ds.PixelRepresentation = int(pixels.dtype.kind == "i")
        data = pixels.tobytes() if frames is None else encapsulate(frames)
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OB" if frames is not None or pixels.dtype.itemsize == 1 else "OW"
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def dicom_bytes(pixels: np.ndarray | None, frames: list[bytes] | None = None, **elements) -> bytes:
    """The same as a file."""
    ds = dicom_dataset(pixels, frames, **elements)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    return stream.getvalue()


def ct_slices(
    folder: Path,
    volume: np.ndarray,
    positions: np.ndarray,
    *,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    spacing: tuple[float, float] = (1.0, 1.0),
    **elements,
) -> Path:
    """Write a CT series: `volume` (slice, row, column) in HU at `positions` (slice, 3)."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, (image, position) in enumerate(zip(volume, positions, strict=True)):
        facts = {
            "SOPClassUID": uid.CTImageStorage,
            "Modality": "CT",
            "ImagePositionPatient": [float(f"{value:.8g}") for value in position],
            "ImageOrientationPatient": [float(f"{value:.10g}") for value in orientation],
            "PixelSpacing": [spacing[1], spacing[0]],
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
        }
        content = dicom_bytes((np.rint(image) + 1024).astype(np.uint16), **{**facts, **elements})
        (folder / f"{(index * 7919) % 10007:05d}.dcm").write_bytes(content)  # file order is not slice order
    return folder


@pytest.fixture(scope="session")
def make_dicom() -> Callable[..., bytes]:
    return dicom_bytes


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    return dicom_dataset


@pytest.fixture(scope="session")
def make_series() -> Callable[..., Path]:
    return ct_slices
