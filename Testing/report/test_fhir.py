"""Predictions as FHIR Bundles, checked against the models of fhir.resources."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest
from click.testing import CliRunner

from dicom_files import write_study
from MediScanLib import cli
from MediScanLib.notice import RESEARCH_USE_NOTICE
from MediScanLib.report.dicom.source import load_sources
from MediScanLib.report.fhir import make_fhir_bundle, write_fhir_bundle
from MediScanLib.study.reading import read_image
from toys import make_predictor

WHEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)


@pytest.fixture
def made(tmp_path):
    path = write_study(tmp_path / "chest.dcm")
    prediction = make_predictor()(read_image(path))
    return prediction, make_fhir_bundle(prediction, load_sources([path], prediction), when=WHEN)


def resources(bundle: dict, kind: str) -> list[dict]:
    return [entry["resource"] for entry in bundle["entry"] if entry["resource"]["resourceType"] == kind]


def test_valid_r4(made):
    models = pytest.importorskip("fhir.resources.R4B.bundle", reason="fhir.resources is not installed")
    bundle = models.Bundle.model_validate(made[1])
    assert json.loads(bundle.model_dump_json())["entry"][0]["resource"]["status"] == "preliminary"


def test_r5_differs_in_two_places(made):
    models = pytest.importorskip("fhir.resources.bundle", reason="fhir.resources is not installed")
    bundle = json.loads(json.dumps(made[1]))
    report = resources(bundle, "DiagnosticReport")[0]
    with pytest.raises(ValueError, match="imagingStudy"):
        models.Bundle.model_validate(bundle)
    report["study"] = report.pop("imagingStudy")
    series = resources(bundle, "ImagingStudy")[0]["series"][0]
    series["modality"] = {"coding": [series["modality"]]}
    models.Bundle.model_validate(bundle)


def test_says_what_the_prediction_says(made):
    prediction, bundle = made
    found = {one["code"]["text"]: one for one in resources(bundle, "Observation")}
    assert all(one["status"] == "preliminary" for one in found.values())
    for finding in prediction.findings:
        one = found[finding.label]
        share = one["component"][0]["valueQuantity"]
        assert share["value"] == pytest.approx(100 * finding.probability, abs=1e-3)
        assert share["code"] == "%"
        assert one["valueCodeableConcept"]["text"].lower() == finding.decision
        assert one["device"]["identifier"]["value"] == prediction.provenance.model_sha256
    codings = {(code["system"], code["code"]) for code in found["pneumonia"]["code"]["coding"]}
    assert codings == {("http://snomed.info/sct", "233604007"), ("http://radlex.org", "RID5350")}
    severity = found["Severity"]
    assert severity["component"][1]["valueQuantity"]["value"] == pytest.approx(prediction.severity.value, abs=1e-4)
    assert RESEARCH_USE_NOTICE in resources(bundle, "DiagnosticReport")[0]["conclusion"]


def test_references_lead_somewhere(made):
    _, bundle = made
    urls = [entry["fullUrl"] for entry in bundle["entry"]]
    assert len(set(urls)) == len(urls)
    report = resources(bundle, "DiagnosticReport")[0]
    results = [one["reference"] for one in report["result"]]
    assert set(results) | {report["imagingStudy"][0]["reference"]} == set(urls[1:])
    study = resources(bundle, "ImagingStudy")[0]
    assert study["identifier"][0]["value"] == "urn:oid:1.2.826.0.1.3680043.8.498.1.3"
    assert study["series"][0]["instance"][0]["uid"] == "1.2.826.0.1.3680043.8.498.1.1"
    assert report["subject"]["identifier"]["value"] == "SECRET-4711"


def test_same_again_is_the_same(made, tmp_path):
    prediction, bundle = made
    path = tmp_path / "chest.dcm"
    again = make_fhir_bundle(prediction, load_sources([path], prediction), when=WHEN)
    assert again == bundle
    write_fhir_bundle(bundle, tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text(encoding="utf-8")) == bundle


def test_without_dicom_there_is_no_study_to_name(made):
    bundle = make_fhir_bundle(made[0], when=WHEN)
    assert resources(bundle, "ImagingStudy") == []
    assert "imagingStudy" not in resources(bundle, "DiagnosticReport")[0]
    models = pytest.importorskip("fhir.resources.R4B.bundle", reason="fhir.resources is not installed")
    models.Bundle.model_validate(bundle)


def test_command_line_goes_in_and_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "_load", lambda model, device, settings: make_predictor(settings=settings))
    write_study(Path("chest.dcm"), PatientAge=None, PatientBirthDate=None)
    values = [
        {
            "resourceType": "Observation",
            "status": "final",
            "effectiveDateTime": f"2024-05-0{day}",
            "code": {"coding": [{"system": "http://loinc.org", "code": "1988-5"}]},
            "valueQuantity": {"value": day, "system": "http://unitsofmeasure.org", "code": "mg/dL"},
        }
        for day in (2, 1)
    ]
    content = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in values]}
    Path("in.json").write_text(json.dumps(content))
    arguments = ["predict", "chest.dcm", "--clinical", "in.json", "--fhir-output", "out", "--output", "r.json"]
    result = CliRunner().invoke(cli.main, arguments)
    assert result.exit_code == 0, result.stderr
    assert "Clinical values: crp_mg_per_l: there are 2 values; that of 2024-05-02 is used." in result.stderr
    used = json.loads(Path("r.json").read_text())[0]["clinical"]["used"]
    assert used["crp_mg_per_l"] == 20
    bundle = json.loads(Path("out/chest.fhir.json").read_text())
    assert resources(bundle, "ImagingStudy")
    refused = CliRunner().invoke(cli.main, [*arguments, "--dicom-output", "d", "--deidentify"])
    assert refused.exit_code == 2
    assert "leave one out" in refused.stderr
