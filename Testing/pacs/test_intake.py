"""The way in: what is taken, what is refused, and what is said of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread

from dicom_files import PATIENT, write_study
from MediScanLib.errors import MediScanError, ReadError
from MediScanLib.pacs.arrivals import ArrivalStore
from MediScanLib.pacs.database import Database
from MediScanLib.pacs.facts import read_facts
from MediScanLib.pacs.folder import NodeFolder, content_digest, key_of
from MediScanLib.pacs.intake import Intake
from MediScanLib.pacs.problems import DiskFullError, NotForUsError, PacsError
from MediScanLib.report.dicom.highdicom_objects import MANUFACTURER


@pytest.fixture
def intake(tmp_path):
    folder = NodeFolder(tmp_path / "node")
    database = Database(folder.database)
    yield Intake(folder, ArrivalStore(database, 5), 1024**2)
    database.close()


def take(intake: Intake, path: Path, **options):
    """As a protocol would: into a spooled file first."""
    with intake.folder.spooled() as (stream, spooled):
        stream.write(path.read_bytes())
        stream.close()
        return intake.take(spooled, "ae:X", **options)


def held(intake: Intake) -> list[Path]:
    return [path for path in intake.folder.root.rglob("*") if path.suffix in (".dcm", ".part")]


def test_an_image_is_filed_under_names_that_tell_nothing(intake, tmp_path):
    taken = take(intake, write_study(tmp_path / "a.dcm"))
    (file,) = held(intake)
    assert taken.is_new and taken.facts.modality == "CR"
    assert "1.2.826" not in str(file) and file.stat().st_mode & 0o077 == 0
    assert not take(intake, tmp_path / "a.dcm").is_new


@pytest.mark.parametrize(
    "hostile", ["../../../etc/passwd", "/etc/passwd", "C:\\x", "1..2", "", " ", "1.2/3", "9" * 65]
)
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_a_uid_that_is_none_is_refused_and_touches_no_other_place(intake, tmp_path, keyword, hostile):
    path = write_study(tmp_path / "a.dcm")
    dataset = dcmread(path)
    dataset[keyword]._value = hostile
    dataset.save_as(path)
    with pytest.raises(PacsError, match=f"no valid {keyword}"):
        take(intake, path)
    assert held(intake) == []


def test_no_patient_id_is_told_without_a_name(intake, tmp_path, caplog):
    take(intake, write_study(tmp_path / "a.dcm", PatientID=None))
    assert "has no Patient ID" in caplog.text
    assert not [value for value in PATIENT.values() if len(value) > 3 and value in caplog.text]


@pytest.mark.parametrize(
    "elements",
    [
        {"Modality": "SR"},
        {"Modality": "SEG"},
        {"Manufacturer": MANUFACTURER},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.30"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4"},
    ],
)
def test_results_and_the_like_are_left_alone(intake, tmp_path, elements):
    with pytest.raises(NotForUsError):
        take(intake, write_study(tmp_path / "a.dcm", **elements))
    assert held(intake) == []


def test_another_object_than_was_announced_is_refused(intake, tmp_path):
    path = write_study(tmp_path / "a.dcm")
    dataset = dcmread(path, stop_before_pixels=True)
    with pytest.raises(PacsError, match="than it was announced with"):
        take(intake, path, expected=(str(dataset.SOPClassUID), "1.2.3"))
    take(intake, path, expected=(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID)))


def test_too_large_and_too_many(intake, tmp_path):
    huge = write_study(tmp_path / "huge.dcm", np.zeros((1100, 1100), np.uint8))
    with pytest.raises(PacsError, match=r"limits\.instance_mb"):
        take(intake, huge)
    for number in range(5):
        take(intake, write_study(tmp_path / "a.dcm", SOPInstanceUID=f"1.2.3.{number}"))
    with pytest.raises(PacsError, match=r"limits\.instances"):
        take(intake, write_study(tmp_path / "a.dcm", SOPInstanceUID="1.2.3.9"))


def test_a_disk_that_is_nearly_full_takes_nothing(tmp_path):
    folder = NodeFolder(tmp_path / "node", free_bytes=shutil.disk_usage(tmp_path).total * 2)
    with pytest.raises(DiskFullError, match=r"limits\.free_mb"), folder.spooled():
        pass


def test_a_disk_that_fills_up_while_an_image_comes_in(intake, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("MediScanLib.pacs.folder.Path.replace", full)
    with pytest.raises(DiskFullError, match="disk is full"):
        take(intake, write_study(tmp_path / "a.dcm"))
    monkeypatch.undo()
    assert held(intake) == []
    assert take(intake, tmp_path / "a.dcm").is_new


@given(share=st.floats(0, 0.999))
def test_a_file_that_is_cut_anywhere_is_refused_or_harmless(tmp_path_factory, share):
    folder = tmp_path_factory.mktemp("cut")
    whole = write_study(folder / "a.dcm").read_bytes()
    (folder / "b.dcm").write_bytes(whole[: int(share * len(whole))])
    try:
        read_facts(folder / "b.dcm", "an object")
    except MediScanError as error:
        assert not [value for value in PATIENT.values() if len(value) > 3 and value in str(error)]


def test_what_is_no_dicom_says_so(intake, tmp_path):
    (tmp_path / "a").write_bytes(b"GIF89a" + bytes(1000))
    with pytest.raises(ReadError, match="is not DICOM"):
        take(intake, tmp_path / "a")


def test_the_digest_is_of_the_content_and_not_of_who_wrote_it(tmp_path):
    path = write_study(tmp_path / "a.dcm")
    before = content_digest(path)
    dataset = dcmread(path)
    dataset.file_meta.ImplementationVersionName = "ANOTHER"
    dataset.save_as(path)
    assert content_digest(path) == before
    dataset.PixelData = bytes(len(dataset.PixelData))
    dataset.save_as(path)
    assert content_digest(path) != before
    assert key_of("1.2") != key_of("1.3") and len(key_of("1.2")) == 16


@pytest.mark.shared_data
def test_awkward_real_files_are_taken_or_refused_with_a_reason(intake, shared_data):
    taken = 0
    intake.most_bytes = 1e9
    files = [path for path in sorted((shared_data / "dicom/files").iterdir()) if path.is_file()]
    for path in files:
        try:
            taken += take(intake, path).is_new
        except MediScanError as error:
            assert str(error).endswith(".") and "Traceback" not in str(error)
    assert taken > len(files) / 3
