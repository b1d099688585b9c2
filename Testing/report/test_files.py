from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from MediScanLib.errors import UsageError
from MediScanLib.report.files import ResultFile, error_entry
from MediScanLib.study.image import MedicalImage
from toys import LABELS, make_predictor


@pytest.fixture(scope="module")
def entry():
    image = MedicalImage(pixels=np.random.default_rng(0).random((1, 20, 30)), source='a, "b"\nü.png')
    return make_predictor()(image).to_dict()


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_valid_after_every_append(tmp_path, entry, ending):
    path = tmp_path / f"r{ending}"
    with ResultFile(path, LABELS) as results:
        for number in range(4):
            assert len(read(path)) == number
            results.append({**entry, "input": f"{number}"} if number % 2 else error_entry(f"{number}", "empty", "no"))
    assert [line["input"] for line in read(path)] == ["0", "1", "2", "3"]


def read(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(text.splitlines()))


def test_csv_quotes_awkward_names(tmp_path, entry):
    path = tmp_path / "r.csv"
    with ResultFile(path, LABELS) as results:
        results.append(entry)
    with path.open(encoding="utf-8", newline="") as stream:
        (line,) = csv.DictReader(stream)
    assert line["input"] == entry["input"]
    assert float(line["probability_pneumonia"]) == pytest.approx(entry["findings"][1]["probability"], abs=1e-6)


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_resume_keeps_results_and_drops_errors(tmp_path, entry, ending):
    path = tmp_path / f"r{ending}"
    with ResultFile(path, LABELS) as results:
        results.append({**entry, "input": "done"})
        results.append(error_entry("failed", "empty", "no"))
    with ResultFile(path, LABELS, resume=True) as results:
        assert results.done == {"done"}
        results.append({**entry, "input": "more"})
    assert [line["input"] for line in read(path)] == ["done", "more"]


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_resume_from_a_file_that_was_cut_in_the_middle(tmp_path, entry, ending):
    path = tmp_path / f"r{ending}"
    with ResultFile(path, LABELS) as results:
        results.append({**entry, "input": "whole"})
        results.append({**entry, "input": "cut"})
    path.write_bytes(path.read_bytes()[:-40])
    with ResultFile(path, LABELS, resume=True) as results:
        assert results.done == {"whole"}
    assert [line["input"] for line in read(path)] == ["whole"]


def test_unknown_ending_and_unwritable_place_are_errors(tmp_path):
    with pytest.raises(UsageError, match=r"\.json, \.jsonl or \.csv"):
        ResultFile(tmp_path / "r.txt", LABELS)
    (tmp_path / "r.json").mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        ResultFile(tmp_path / "r.json", LABELS)


def test_resume_refuses_a_csv_of_another_model(tmp_path, entry):
    path = tmp_path / "r.csv"
    with ResultFile(path, LABELS) as results:
        results.append(entry)
    with pytest.raises(UsageError, match="other columns"):
        ResultFile(path, ["another"], resume=True)
