"""`mediscan predict --dicom-output`, as its users meet it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dicom_files import write_series, write_study
from MediScanLib import cli
from toys import make_predictor

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install mediscan[dicom]")


@pytest.fixture
def mediscan(monkeypatch, tmp_path):
    """Runs a command in an empty folder with a toy model."""
    monkeypatch.setattr(cli, "_load", lambda model, device, settings: make_predictor(settings=settings))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(cli.main, ["predict", *map(str, arguments)])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def written(folder: str = "out") -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def study(name: str, number: int = 1) -> Path:
    return write_study(Path(name), SOPInstanceUID=f"1.2.3.{number}", StudyInstanceUID=f"1.2.4.{number}")


def test_each_input_has_its_folder(mediscan):
    study("a/chest.dcm", 1), study("b/chest.dcm", 2)
    volume = np.full((4, 32, 32), -900.0)
    volume[:, 4:28, 4:28] = 700
    write_series(Path("ct"), volume, [[0, 0, 2.0 * i] for i in range(4)])
    result = mediscan("a", "b", "ct", "--dicom-output", "out", "--output", "r.json")
    assert result.exit_code == 0, result.stderr
    assert written() == [
        *("chest.dcm-2/sc-pneumonia.dcm", "chest.dcm-2/seg.dcm", "chest.dcm-2/sr.dcm"),
        *("chest.dcm/sc-pneumonia.dcm", "chest.dcm/seg.dcm", "chest.dcm/sr.dcm"),
        *("ct/pm-pneumonia.dcm", "ct/sc-pneumonia.dcm", "ct/seg.dcm", "ct/sr.dcm"),
    ]
    assert pydicom.dcmread("out/chest.dcm/sr.dcm").StudyInstanceUID == "1.2.4.1"
    assert pydicom.dcmread("out/chest.dcm-2/sr.dcm").StudyInstanceUID == "1.2.4.2"
    assert result.stderr.count("No parametric map") == 1  # told once, not for each radiograph


def test_what_is_not_dicom_loses_nothing_else(mediscan):
    study("a.dcm")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save("b.png")
    result = mediscan("b.png", "a.dcm", "--dicom-output", "out", "--output", "r.json")
    assert result.exit_code == 3
    assert "b.png: is not DICOM" in result.stderr
    assert "2 done, 0 failed, 1 without DICOM results" in result.stderr
    assert written() == ["a/sc-pneumonia.dcm", "a/seg.dcm", "a/sr.dcm"]
    assert [entry["input"] for entry in json.loads(Path("r.json").read_text()) if "findings" in entry] == [
        "b.png",
        "a.dcm",
    ]


def test_missing_study_uid_is_named(mediscan):
    write_study(Path("a.dcm"), StudyInstanceUID=None)
    result = mediscan("a.dcm", "--dicom-output", "out")
    assert result.exit_code == 3
    assert "no StudyInstanceUID" in result.stderr


def test_resume_makes_what_is_missing(mediscan):
    study("a.dcm", 1), study("b.dcm", 2)
    mediscan("a.dcm", "--dicom-output", "out", "--output", "r.jsonl")
    before = Path("out/a/sr.dcm").stat().st_mtime_ns
    result = mediscan("a.dcm", "b.dcm", "--dicom-output", "out", "--output", "r.jsonl", "--resume")
    assert result.exit_code == 0
    assert Path("out/a/sr.dcm").stat().st_mtime_ns == before
    assert "b/sr.dcm" in written()


def test_full_disk_leaves_the_input_to_resume(mediscan, monkeypatch):
    """A result is only noted when its objects are written."""
    study("a.dcm", 1)
    from MediScanLib.errors import WriteError
    from MediScanLib.report.dicom import writing

    with monkeypatch.context() as patch:

        def full(results, folder):
            raise WriteError(f"{folder}: cannot be written (No space left on device).")

        patch.setattr(writing, "save_dicom_results", full)
        result = mediscan("a.dcm", "--dicom-output", "out", "--output", "r.jsonl")
        assert result.exit_code == 1
        assert "No space left" in result.stderr
    assert Path("r.jsonl").read_text() == ""
    assert mediscan("a.dcm", "--dicom-output", "out", "--output", "r.jsonl", "--resume").exit_code == 0
    assert "a/sr.dcm" in written()


def test_objects_of_an_earlier_run_are_no_input(mediscan):
    study("images/a.dcm")
    assert mediscan("images", "--dicom-output", "images/out", "--output", "r.jsonl").exit_code == 0
    assert mediscan("images", "--dicom-output", "images/out", "--output", "r.jsonl").exit_code == 0
    assert len(Path("r.jsonl").read_text().splitlines()) == 1


def test_folder_that_would_replace_an_input(mediscan):
    study("a")
    result = mediscan("a", "--dicom-output", ".")
    assert result.exit_code == 2
    assert "would replace an input" in result.stderr


def test_deidentified(mediscan):
    study("Doe_Jane.dcm")
    result = mediscan("Doe_Jane.dcm", "--dicom-output", "out", "--deidentify", "--key-file", "key")
    assert result.exit_code == 0, result.stderr
    assert written() == ["00001/images/00001.dcm", "00001/sc-pneumonia.dcm", "00001/seg.dcm", "00001/sr.dcm"]
    assert "Look at images and pictures before you pass them on" in result.stderr
    first = pydicom.dcmread("out/00001/sr.dcm").PatientID
    mediscan("Doe_Jane.dcm", "--dicom-output", "again", "--deidentify", "--key-file", "key")
    assert pydicom.dcmread("again/00001/sr.dcm").PatientID == first
    mediscan("Doe_Jane.dcm", "--dicom-output", "other", "--deidentify")
    assert pydicom.dcmread("other/00001/sr.dcm").PatientID != first


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--deidentify",), "belong to --dicom-output"),
        (("--key-file", "k", "--dicom-output", "out"), "belongs to --deidentify"),
        (("--dicom-output", "a.dcm"), "is no folder"),
    ],
)
def test_wrong_use(mediscan, arguments, says):
    study("a.dcm")
    result = mediscan("a.dcm", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_without_heat_maps_there_is_a_report(mediscan):
    study("a.dcm")
    Path("c.yaml").write_text("inference: {explainability: false}\n")
    result = mediscan("a.dcm", "--dicom-output", "out", "--config", "c.yaml")
    assert result.exit_code == 0
    assert written() == ["a/sr.dcm"]
    assert "no heat maps" in result.stderr


def test_server_predicts_and_the_objects_are_made_here(tmp_path, monkeypatch):
    pytest.importorskip("fastapi", reason="the server is not installed")
    from serving import RunningServer, make_bundle

    make_bundle(tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    volume = np.full((4, 32, 32), -900.0)
    volume[:, 4:28, 4:28] = 700
    write_series(Path("ct"), volume, [[0, 0, 2.0 * i] for i in range(4)])
    with RunningServer(tmp_path / "server", tmp_path / "models") as server:
        arguments = ["predict", "ct", "--server", server.url, "--model", "toy-random", "--dicom-output", "out"]
        result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.stderr
    assert {"ct/sr.dcm", "ct/seg.dcm"} < set(written())
    assert any(name.startswith("ct/pm-") for name in written())
    report = pydicom.dcmread("out/ct/sr.dcm")
    assert len(report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence) >= 2
