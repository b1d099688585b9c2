"""The check of a manifest: everything that is wrong at once, copies that were changed on the way, and the command."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageEnhance, ImageFilter

from MediScanLib.commands.data import data
from MediScanLib.errors import CancelledError, DataError, ReadError
from MediScanLib.progress import CallbackProgress
from MediScanLib.training.checking import check_manifest
from MediScanLib.training.duplicates import fingerprint, fingerprints, same_images
from MediScanLib.training.manifest import write_manifest

COLUMNS = (
    *("image", "source", "patient", "split", "fold", "label", "age_years", "sex", "spo2_percent"),
    *("leukocytes_1e9_per_l", "neutrophils_1e9_per_l", "lymphocytes_1e9_per_l", "brixia_senior"),
)


def picture(seed, side=128):
    """Blobs at several scales; two seeds have nothing in common."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side))
    for cells in (4, 8, 16, 32):
        noise = Image.fromarray(rng.random((cells, cells)).astype(np.float32))
        total += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC))
    total -= total.min()
    return Image.fromarray((255 * total / total.max()).astype(np.uint8))


@pytest.fixture
def dataset(tmp_path):
    """A manifest without any problem, as rows that a test changes; `write` writes it."""
    rows = []
    for number, split in enumerate(("train",) * 6 + ("val",) * 4 + ("test",) * 4):
        picture(number).save(tmp_path / f"{number}.png")
        row = dict.fromkeys(COLUMNS, "")
        label = ("normal", "cancer")[number % 2]
        rows.append(row | {"image": f"{number}.png", "source": "s", "patient": f"p{number}", "split": split})
        rows[-1]["label"] = label

    def write():
        write_manifest(tmp_path / "manifest.csv", COLUMNS, rows)
        return tmp_path / "manifest.csv"

    return rows, write


def kinds(report, level="problem"):
    return Counter(finding.kind for finding in report.findings if finding.level == level)


def test_nothing_is_wrong(dataset):
    _, write = dataset
    report = check_manifest(write())
    assert not report.problems, report.to_text()
    assert report.balance["s"]["cancer"] == {"train": 3, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ({"image": "gone.png"}, "missing_file"),
        ({"label": "flu"}, "unknown_label"),
        ({"split": "dev"}, "unknown_split"),
        ({"source": ""}, "empty_cell"),
        ({"age_years": "414"}, "clinical_value"),
        ({"spo2_percent": "0.97"}, "clinical_value"),
        ({"leukocytes_1e9_per_l": "5", "neutrophils_1e9_per_l": "4", "lymphocytes_1e9_per_l": "2"}, "clinical_value"),
        ({"brixia_senior": "19"}, "severity"),
        ({"fold": "x"}, "not_a_count"),
    ],
)
def test_a_bad_row_is_found_and_named(dataset, cells, kind):
    rows, write = dataset
    rows[2].update(cells)
    (problem,) = check_manifest(write(), images=False).problems
    assert problem.kind == kind
    assert problem.rows == (4,)
    assert problem.text.startswith("row 4: ")


def test_all_problems_are_found_at_once(dataset):
    rows, write = dataset
    rows[0].update(age_years="414", spo2_percent="0.97", image="gone.png")
    rows[1].update(label="flu", split="dev")
    rows[12]["patient"] = "p3"
    assert kinds(check_manifest(write())) == {
        "clinical_value": 2,
        "missing_file": 1,
        "unknown_label": 1,
        "unknown_split": 1,
        "leaking_patient": 1,
    }


def test_patients(dataset):
    rows, write = dataset
    rows[0].update(patient="p1", sex="F", fold="0")
    rows[1].update(patient="p1", sex="M", fold="1")
    rows[2].update(patient="p1", source="other")
    report = check_manifest(write(), images=False)
    assert kinds(report) == {"leaking_patient": 1, "patient_sex": 1}
    assert "the folds 0, 1" in next(p for p in report.problems if p.kind == "leaking_patient").text


def test_splits_that_nothing_can_be_learned_from(dataset):
    rows, write = dataset
    for row in rows:
        row["label"] = "cancer" if row["split"] == "train" else row["label"]
        row["split"] = "train" if row["split"] == "val" else row["split"]
    rows[6]["label"] = rows[8]["label"] = "cancer"
    assert kinds(check_manifest(write(), images=False)) == {"empty_split": 1, "one_class": 1}
    for number, row in enumerate(rows):
        row.update(split="train", fold=str(number % 2))
    assert "empty_split" not in kinds(check_manifest(write(), images=False)), "folds need no split"


def test_what_a_person_should_know(dataset):
    rows, write = dataset
    rows[0]["source"] = "single"
    for row in rows[1:]:
        row["label"] = "normal"
    rows[13]["label"] = "cancer"
    notes = kinds(check_manifest(write(), images=False), "note")
    assert notes["source_tells_label"] == 1
    assert notes["imbalance"] == 1
    assert notes["few_studies"] == 3


def test_images_that_training_cannot_use(dataset, tmp_path):
    rows, write = dataset
    content = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "2.png").write_text("no image", encoding="utf-8")
    Image.new("L", (32, 32), 7).save(tmp_path / "3.png")
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "nan.tif")
    rows[4]["image"] = "nan.tif"
    half = np.asarray(picture(5), dtype=np.float32).copy()
    half[:9] = np.nan
    Image.fromarray(half).save(tmp_path / "half.tif")
    rows[5]["image"] = "half.tif"
    report = check_manifest(write())
    assert kinds(report) == {"unreadable_image": 3, "blank_image": 1}
    assert {problem.rows for problem in report.problems} == {(3,), (4,), (5,), (6,)}
    assert [note.text for note in report.findings if note.kind == "image_warning" and "NaN" in note.text]


CHANGES = {
    "smaller": lambda image: image.resize((77, 77), Image.Resampling.BICUBIC),
    "stretched": lambda image: image.resize((200, 150), Image.Resampling.BICUBIC),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "flatter": lambda image: ImageEnhance.Contrast(image).enhance(0.5),
    "flipped": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "softer": lambda image: image.filter(ImageFilter.GaussianBlur(1.0)),
    "moved": lambda image: image.transform(image.size, Image.Transform.AFFINE, (1, 0, 1, 0, 1, 0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_copies_across_splits_are_found(dataset, tmp_path, name):
    _, write = dataset
    CHANGES[name](Image.open(tmp_path / "0.png")).convert("L").save(tmp_path / "12.png")
    report = check_manifest(write())
    assert kinds(report) == {"leaking_near_copy": 1}
    assert report.problems[0].rows == (2, 14)


def test_recompressed_copy(dataset, tmp_path):
    rows, write = dataset
    Image.open(tmp_path / "0.png").save(tmp_path / "copy.jpg", quality=40)
    rows[12]["image"] = "copy.jpg"
    assert kinds(check_manifest(write())) == {"leaking_near_copy": 1}


def test_exact_copies(dataset, tmp_path):
    rows, write = dataset
    shutil.copy(tmp_path / "0.png", tmp_path / "12.png")
    Image.open(tmp_path / "0.png").save(tmp_path / "2.png", compress_level=1)
    rows[2]["label"] = "cancer"
    report = check_manifest(write())
    assert kinds(report) == {"leaking_copy": 1, "duplicate": 1, "label_conflict": 1}
    texts = {problem.kind: problem.text for problem in report.problems}
    assert "the same file" in texts["leaking_copy"]
    assert "the same pixels" in texts["duplicate"]
    assert "labelled normal and cancer" in texts["label_conflict"]


def test_copies_in_one_split(dataset, tmp_path):
    rows, write = dataset
    CHANGES["smaller"](Image.open(tmp_path / "0.png")).save(tmp_path / "1.png")
    report = check_manifest(write())
    assert not report.problems
    assert kinds(report, "note")["near_duplicate"] == 1
    assert kinds(report, "note")["near_label_conflict"] == 1
    rows[1]["patient"] = rows[0]["patient"]
    assert "near_duplicate" not in kinds(check_manifest(write()), "note"), "two images of one patient may be alike"


def test_images_without_detail_are_no_copies_of_each_other(tmp_path):
    for value in (0, 9):
        Image.new("L", (40, 40), value).save(tmp_path / f"{value}.png")
    prints = [fingerprint(tmp_path / name) for name in ("0.png", "9.png")]
    assert not same_images(prints)


def test_more_images_than_one_block(tmp_path, monkeypatch):
    monkeypatch.setattr("MediScanLib.training.duplicates._BLOCK", 3)
    for number in range(10):
        picture(number % 7).resize((100 + number, 100)).save(tmp_path / f"{number}.png")
    prints = fingerprints([tmp_path / f"{number}.png" for number in range(10)])
    assert [(pair.first, pair.second) for pair in same_images(prints)] == [(0, 7), (1, 8), (2, 9)]


def test_errors_take_the_place_of_fingerprints(tmp_path):
    (tmp_path / "empty.png").touch()
    (result,) = fingerprints([tmp_path / "empty.png"])
    assert isinstance(result, ReadError)


def test_a_check_can_be_cancelled(dataset):
    _, write = dataset
    with pytest.raises(CancelledError):
        check_manifest(write(), progress=CallbackProgress(lambda *_: None, lambda: True))


def test_no_manifest(tmp_path):
    with pytest.raises(DataError):
        check_manifest(tmp_path / "none.csv")


def test_command(dataset, tmp_path):
    rows, write = dataset
    fine = CliRunner().invoke(data, ["check", str(write())])
    assert fine.exit_code == 0, fine.output
    assert "Problems:\n  none" in fine.output
    for number in range(8):
        rows[number]["age_years"] = "414"
    bad = CliRunner().invoke(data, ["check", str(write()), "--no-images"])
    assert bad.exit_code == 3
    assert "Implausible clinical values: 8 (s 8)" in bad.output
    assert "and 3 more" in bad.output
    assert "were not looked at" in bad.output
    whole = CliRunner().invoke(data, ["check", str(write()), "--json"])
    assert whole.exit_code == 3
    report = json.loads(whole.stdout)
    assert report["problems"] == report["counts"]["clinical_value"] == 8
    assert len([finding for finding in report["findings"] if finding["level"] == "problem"]) == 8


@pytest.mark.shared_data
def test_the_real_manifest(shared_data):
    report = check_manifest(shared_data / "studies.csv")
    assert report.studies == 3854
    assert set(kinds(report)) == {"leaking_near_copy", "duplicate"}
    leaks = Counter(finding.source for finding in report.problems if finding.kind == "leaking_near_copy")
    assert set(leaks) == {"busi", "iqothnccd", "bone_roboflow", "cohen"}, (
        "radiographs of different patients are no copies"
    )
    assert leaks["busi"] > 40
    assert leaks["iqothnccd"] > 40
    assert kinds(report, "note")["near_label_conflict"] == 4
    assert kinds(report, "note")["source_tells_label"] == 1
