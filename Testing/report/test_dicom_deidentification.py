"""Nothing that identifies the patient may be in any byte of what is written for research."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from dicom_files import PATIENT, write_series, write_study
from MediScanLib.errors import ReportError
from MediScanLib.report.dicom.deidentification import Deidentifier
from MediScanLib.report.dicom.source import source_files
from MediScanLib.report.dicom.writing import make_dicom_results, save_dicom_results
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import ClinicalRecord
from toys import make_predictor

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install mediscan[dicom]")

KEY = bytes(range(32))
HIDDEN = {
    "OperatorsName": "Radiographer^Ron",
    "InstitutionAddress": "1 Nowhere Lane",
    "StationName": "STATION-7",
    "ProtocolName": "Protocol of Dr Whom",
    "SeriesDescription": "for Jane Doe",
    "ImageComments": "daughter of the mayor",
    "AcquisitionDate": "20240507",
    "AcquisitionTime": "141516",
    "SeriesDate": "20240508",
    "ContentDate": "20240509",
    "PatientAddress": "2 Nowhere Lane",
    "OtherPatientIDs": "OTHER-1147",
    "PatientTelephoneNumbers": "555-0199",
    "RequestedProcedureDescription": "Rule out gout",
    "PerformedProcedureStepStartDate": "20240510",
}


@pytest.fixture(scope="module")
def predictor():
    return make_predictor()


def write(path: Path, folder: Path, predictor, key: bytes = KEY) -> tuple[list[Path], tuple[str, ...]]:
    record = ClinicalRecord(age_years=67, sex="F")
    prediction = predictor(read_image(path), record)
    results = make_dicom_results(prediction, None, source_files(path), deidentifier=Deidentifier(key))
    return save_dicom_results(results, folder), results.notes


def with_private_and_overlay(path: Path) -> Path:
    dataset = pydicom.dcmread(path)
    dataset.private_block(0x0029, "VENDOR SECRET", create=True).add_new(0x10, "LO", "Jane Doe private")
    dataset.add_new(0x60003000, "OW", b"JANE DOE OVERLAY")
    request = Dataset()
    request.RequestingPhysician, request.AccessionNumber = "Nested^Name", "NESTED-77"
    dataset.RequestAttributesSequence = [request]
    dataset.save_as(path)
    return path


def test_no_identifying_value_is_in_any_byte(tmp_path, predictor):
    path = with_private_and_overlay(write_study(tmp_path / "Doe_Jane.dcm", **HIDDEN))
    files, _ = write(path, tmp_path / "out", predictor)
    source = pydicom.dcmread(path)
    values = {*HIDDEN.values(), *PATIENT.values()} - {"F"}
    values |= {"Doe", "Jane", "Whom", "Ron", "VENDOR SECRET", "JANE DOE", "Nested", "NESTED-77"}
    values |= {str(source[keyword].value) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    assert {path.parent.name for path in files} == {"out", "images"}
    for file in files:
        content = file.read_bytes()
        assert [value for value in values if value.encode() in content] == [], file.name


def test_every_object_says_that_identity_was_removed(tmp_path, predictor):
    files, _ = write(write_study(tmp_path / "a.dcm"), tmp_path / "out", predictor)
    for file in files:
        dataset = pydicom.dcmread(file)
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert dataset.LongitudinalTemporalInformationModified == "REMOVED"
        assert dataset.StudyDate == ""
        assert dataset.PatientSex == ""
        assert "PatientAge" not in dataset
        assert dataset.get("ContentDate", "19000101") == "19000101"
        assert not any(element.tag.is_private for element in dataset.iterall())


def test_results_refer_to_the_copies(tmp_path, predictor):
    folder = write_series(tmp_path / "ct", np.full((4, 32, 32), 300.0), [[0, 0, 2.0 * i] for i in range(4)])
    files, _ = write(folder, tmp_path / "out", predictor)
    read = {file.relative_to(tmp_path / "out").as_posix(): pydicom.dcmread(file) for file in files}
    copies = {dataset.SOPInstanceUID for name, dataset in read.items() if name.startswith("images/")}
    assert len(copies) == 4
    referred = {
        item.ReferencedSOPInstanceUID
        for item in read["seg.dcm"].ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referred == copies
    assert len({dataset.StudyInstanceUID for dataset in read.values()}) == 1
    assert len({dataset.PatientID for dataset in read.values()}) == 1
    frames = {dataset.FrameOfReferenceUID for name, dataset in read.items() if name.startswith(("im", "seg", "pm"))}
    assert len(frames) == 1


def test_copies_are_the_same_image(tmp_path, predictor, shared_data):
    files = shared_data / "dicom" / "files"
    for name in ("pydicom_data__RG1_J2KR.dcm", "pydicom_data__color-pl.dcm", "pydicom_data__SC_rgb_expb.dcm"):
        files_out, _ = write(files / name, tmp_path / name, predictor)
        copy = next(path for path in files_out if path.parent.name == "images")
        image, again = read_image(files / name), read_image(copy)
        assert np.array_equal(image.pixels, again.pixels)
        assert (image.spacing, image.window, image.modality) == (again.spacing, again.window, again.modality)
    folder = shared_data / "dicom" / "ct_ge_variable_gap"
    write(folder, tmp_path / "ct", predictor)
    image, again = read_image(folder), read_image(tmp_path / "ct" / "images")
    assert np.array_equal(image.pixels, again.pixels)
    assert np.allclose(image.affine, again.affine)
    assert image.identifiers != again.identifiers


def test_same_key_same_pseudonym_other_key_other_pseudonym(tmp_path, predictor):
    first = write_study(tmp_path / "a.dcm")
    second = write_study(tmp_path / "b.dcm", StudyInstanceUID="1.2.3.9", SOPInstanceUID="1.2.3.9.1")
    found = {}
    for name, path, key in (("a", first, KEY), ("b", second, KEY), ("c", first, bytes(32))):
        write(path, tmp_path / name, predictor, key)
        found[name] = pydicom.dcmread(tmp_path / name / "sr.dcm")
    assert found["a"].PatientID == found["b"].PatientID
    assert found["a"].StudyInstanceUID != found["b"].StudyInstanceUID
    assert found["a"].PatientID != found["c"].PatientID
    assert found["a"].StudyInstanceUID != found["c"].StudyInstanceUID


def test_patients_without_id_are_not_one(tmp_path):
    headers = []
    for study in ("1.2.3", "1.2.4"):
        header = Dataset()
        header.StudyInstanceUID = study
        headers.append(header)
    assert Deidentifier(KEY).patient(headers[0]) != Deidentifier(KEY).patient(headers[1])


@given(st.from_regex(r"[12](\.[1-9][0-9]{0,8}){1,7}", fullmatch=True))
def test_uids_are_valid_and_repeat(original):
    made = Deidentifier(KEY).uid(original)
    assert made.is_valid
    assert len(made) <= 64
    assert made == Deidentifier(KEY).uid(original) != original


def test_key_file_is_made_private_and_used_again(tmp_path):
    path = tmp_path / "key"
    first = Deidentifier.from_file(path)
    assert first == Deidentifier.from_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("too short")
    with pytest.raises(ReportError, match="holds no key"):
        Deidentifier.from_file(path)


@pytest.mark.parametrize(("stated", "said"), [("NO", ""), ("YES", "is burnt into"), (None, "does not say whether")])
def test_burnt_in_text_is_warned_of(tmp_path, predictor, stated, said):
    _, notes = write(write_study(tmp_path / "a.dcm", BurnedInAnnotation=stated), tmp_path / "out", predictor)
    warnings = [note for note in notes if "burnt" in note]
    assert (said in warnings[0]) if said else not warnings
