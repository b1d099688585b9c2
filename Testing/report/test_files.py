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


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_resume_refuses_results_of_another_model_with_the_same_labels(tmp_path, entry, ending):
    path = tmp_path / f"r{ending}"
    with ResultFile(path, LABELS, model_sha256="0" * 64) as results:
        results.append(entry)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="another model"):
        ResultFile(path, LABELS, resume=True, model_sha256="1" * 64)
    assert path.read_bytes() == before
    ResultFile(path, LABELS, resume=True, model_sha256="0" * 64).close()
    assert len(read(path)) == 1


def test_resume_from_json_that_somebody_laid_out_anew(tmp_path, entry):
    path = tmp_path / "r.json"
    path.write_text(json.dumps([entry, error_entry("x", "empty", "no")], indent=4))
    with ResultFile(path, LABELS, resume=True) as results:
        assert results.done == {entry["input"]}
    assert read(path) == [entry]


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv"])
@pytest.mark.parametrize("content", ['{"age_years": 63}', '[{"input": "a.png", "age_years": 63}]', "some text\n", "1"])
def test_resume_never_replaces_what_is_not_ours(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UsageError, match=r"does not hold MediScan's results|has other columns"):
        ResultFile(path, LABELS, resume=True)
    assert path.read_text() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_resume_from_an_empty_file(tmp_path, ending):
    path = tmp_path / f"r{ending}"
    path.touch()
    ResultFile(path, LABELS, resume=True).close()
    assert read(path) == []


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_names_with_any_character_survive_a_resume(tmp_path, entry, ending):
    path = tmp_path / f"r{ending}"
    name = "a\u2028b\x85c\nd\x0c.png"
    with ResultFile(path, LABELS) as results:
        results.append({**entry, "input": name})
    with ResultFile(path, LABELS, resume=True) as results:
        assert results.done == {name}


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
def test_a_name_that_is_no_text_is_written_all_the_same(tmp_path, entry, ending):
    path = tmp_path / f"r{ending}"
    with ResultFile(path, LABELS) as results:
        results.append({**entry, "input": "a\udcff.png"})
        results.append({**entry, "input": "b.png"})
    assert len(read(path)) == 2
    assert "\\udcff" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("ending", [".json", ".jsonl", ".csv"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_half_a_write_is_taken_back(tmp_path, entry, ending, error):
    class Failing:
        """Writes half of what it is given and then fails, once."""

        def __init__(self, stream):
            self.stream, self.fails = stream, True

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def write(self, data):
            if not self.fails:
                return self.stream.write(data)
            self.fails = False
            self.stream.write(data[: len(data) // 2])
            raise error

    path = tmp_path / f"r{ending}"
    with ResultFile(path, LABELS) as results:
        results.append({**entry, "input": "first"})
        results._stream = Failing(results._stream)
        before = path.read_bytes()
        with pytest.raises(type(error)):
            results.append({**entry, "input": "second"})
        assert path.read_bytes() == before
        results.append({**entry, "input": "third"})
    assert [line["input"] for line in read(path)] == ["first", "third"]


@pytest.mark.parametrize("folder", ["a-file/below", "locked/below"])
def test_a_place_that_cannot_be_made_is_an_error(tmp_path, folder):
    (tmp_path / "a-file").touch()
    (tmp_path / "locked").symlink_to("/proc/self")
    with pytest.raises(UsageError, match=r"r\.json: cannot be written .*Choose another place"):
        ResultFile(tmp_path / folder / "r.json", LABELS)
