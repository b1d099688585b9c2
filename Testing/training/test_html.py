"""The report and the command: from files to files."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from MediScanLib.commands.evaluate import evaluate as command
from MediScanLib.errors import DataError
from MediScanLib.report.picture import draw_prediction
from MediScanLib.training.evaluating import run
from MediScanLib.training.evaluating.learning import LearningLog, mean_log, read_log
from toys import make_card, make_predictor

EVIL = "<script>alert('x')</script>"


def write_manifest(folder, rows):
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with (folder / "studies.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "studies.csv"


def bright_or_dark(folder, count=12):
    """Pneumonia is bright, which is what the toy network sees."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        pixels = rng.integers(0, 60, (64, 64)).astype(np.uint8)
        pixels[:40] += np.uint8(150 * (i % 2))
        pixels[0, :8] = 255  # all have the same range, so that brightness is the mean
        name = f"{i:08d}_000.png"
        Image.fromarray(pixels).save(folder / name)
        rows.append(
            {
                **{"image": name, "source": "nih", "patient": str(i), "split": "train" if i < 4 else "test"},
                **{"label": "pneumonia" if i % 2 else "normal", "view": "PA", "age_years": 30 + i, "sex": "FM"[i % 2]},
            }
        )
    return rows


class Tags(HTMLParser):
    """Tags in order, and all addresses."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    manifest = write_manifest(folder, bright_or_dark(folder))
    log = folder / "log.csv"
    log.write_text("epoch,train_loss,val_loss,rate\n1,2,3,0.1\n2,1,2.5,\n", encoding="utf-8")
    predictor = make_predictor(cautions=[EVIL], title=EVIL)
    request = run.Request(folder / "out", log=log, resamples=30)
    summary = run.evaluate(request, [run.Part(predictor, manifest, "test")], draw_prediction)
    return summary, (folder / "out" / run.REPORT_FILE).read_text(encoding="utf-8"), folder / "out"


def test_the_toy_tells_bright_from_dark(report):
    summary, _, folder = report
    assert summary.within_source[0].figures["AUC-ROC"].value == 1
    assert summary.within_source[0].studies == 8
    figures = json.loads((folder / run.METRICS_FILE).read_text(encoding="utf-8"))
    assert figures["within_source"][0]["figures"]["AUC-ROC"]["value"] == 1
    assert figures["subject"]["split"] == "test"
    with (folder / run.PREDICTIONS_FILE).open(encoding="utf-8", newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 8


def test_without_the_image_the_toy_knows_nothing(report):
    summary, _, _ = report
    (row,) = summary.ablation
    assert row.auc["clinical only"].value == 0.5  # its clinical weights are zero
    assert row.auc["image only"].value == 1
    assert row.differences["fused - image only"].value == 0


def test_the_first_thing_is_the_table_of_diseases(report):
    page = report[1]
    body = page[page.index("<body>") :]
    tags = Tags()
    tags.feed(body)
    assert tags.tags[:3] == ["body", "h1", "table"]
    first = body[body.index("<table") : body.index("</table>")]
    for name in ("Accuracy", "Precision", "Recall", "F1", "AUC-ROC", *make_card().labels):
        assert name in first
    assert "not measured" in first  # fracture, cancer


def test_the_page_needs_nothing_else(report):
    tags = Tags()
    tags.feed(report[1])
    assert tags.addresses
    assert all(address.startswith("data:image/") for address in tags.addresses)
    assert "script" not in tags.tags


def test_foreign_text_is_escaped(report):
    assert EVIL not in report[1]
    assert "&lt;script&gt;" in report[1]


def test_every_section_is_there(report):
    for heading in (
        "What each input adds",
        "What can be had without the picture",
        "Learning curves",
        "Best and worst",
    ):
        assert heading in report[1]
    assert re.search(r"confounded", report[1])


def test_fused_probabilities_are_the_predictors(report, tmp_path):
    rows = bright_or_dark(tmp_path)
    manifest = write_manifest(tmp_path, rows)
    predictor = make_predictor()
    part = run.Part(predictor, manifest, "test")
    run.evaluate(run.Request(tmp_path / "out", resamples=5), [part], draw_prediction)
    from MediScanLib.training.datasets import read_manifest
    from MediScanLib.training.evaluating.asking import read_study

    with (tmp_path / "out" / run.PREDICTIONS_FILE).open(encoding="utf-8", newline="") as stream:
        written = {row["image"]: row for row in csv.DictReader(stream)}
    for study in [s for s in read_manifest(manifest) if s.split == "test"][:3]:
        expected = predictor(read_study(study), study.record).probabilities
        for label, value in expected.items():
            assert float(written[study.image.name][f"{label}_fused"]) == pytest.approx(value, abs=1e-6)


def test_an_empty_split_is_told_at_once(tmp_path):
    manifest = write_manifest(tmp_path, bright_or_dark(tmp_path))
    with pytest.raises(DataError, match="no study is in split val"):
        run.evaluate(run.Request(tmp_path / "out"), [run.Part(make_predictor(), manifest, "val")], draw_prediction)
    assert not (tmp_path / "out").exists()


def test_an_unreadable_image_names_its_row(tmp_path):
    manifest = write_manifest(tmp_path, bright_or_dark(tmp_path))
    (tmp_path / "00000005_000.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(DataError, match="row 7"):
        run.evaluate(run.Request(tmp_path / "out"), [run.Part(make_predictor(), manifest, "test")], draw_prediction)


def test_a_folder_that_cannot_be_made_is_an_error_and_keeps_what_is_there(tmp_path):
    manifest = write_manifest(tmp_path, bright_or_dark(tmp_path))
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="cannot be made"):
        run.evaluate(run.Request(tmp_path / "out"), [run.Part(make_predictor(), manifest, "test")], draw_prediction)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


def test_a_log_of_another_kind_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="epoch"):
        read_log(tmp_path / "log.csv")


def test_command_on_real_studies(shared_data, tmp_path, monkeypatch):
    """A few studies of two sources with their boxes, through the shipped model."""
    with (shared_data / "studies.csv").open(encoding="utf-8-sig", newline="") as stream:
        everything = list(csv.DictReader(stream))
    chosen = []
    for source, label in (("nih", "normal"), ("nih", "pneumonia"), ("busi", "cancer"), ("busi", "benign")):
        for split, count in (("train", 2), ("val", 4)):
            own = [row for row in everything if (row["source"], row["label"], row["split"]) == (source, label, split)]
            chosen += own[:count]
    for row in chosen:
        row["image"] = str(shared_data / row["image"])
    manifest = write_manifest(tmp_path, chosen)
    monkeypatch.setattr("MediScanLib.training.evaluating.randomization.MOST_IMAGES", 2)
    result = CliRunner().invoke(
        command,
        [
            *("--data", str(manifest), "--split", "val", "--device", "cpu", "--resamples", "20"),
            *("--boxes", str(shared_data / "boxes.csv"), "--output", str(tmp_path / "out")),
        ],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert {row["source"] for row in figures["within_source"]} == {"nih", "busi"}
    assert figures["randomization"]
    assert len((tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 17
    busi = next(row for row in figures["ablation"] if row["source"] == "busi")
    assert 0 <= busi["auc"]["fused"]["value"] <= 1


def test_curves_of_several_runs_are_averaged_over_those_that_came_so_far():
    long = LearningLog([1, 2, 3], {"val_loss": [3, 2, 1], "train_loss": [1, 1, 1]})
    short = LearningLog([1, 2], {"val_loss": [1, 0]})
    assert mean_log([short, long]) == LearningLog([1, 2, 3], {"val_loss": [2, 1, 1]})
    assert mean_log([long]) == long
