"""The manifest file: reading it strictly, partial labels, and writing it whole or not at all."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from MediScanLib.errors import DataError
from MediScanLib.training.datasets import (
    EXCLUDES,
    LABELS,
    allowed_findings,
    check_trainable,
    read_manifest,
)
from MediScanLib.training.manifest import (
    BOX_COLUMNS,
    COLUMNS,
    REQUIRED_COLUMNS,
    Box,
    read_rows,
    write_boxes,
    write_manifest,
)


@pytest.fixture
def manifest(tmp_path):
    """Writes a manifest whose images exist; a row is a dict of cells."""
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")

    def write(*rows, columns=None):
        full = {"image": "a.png", "source": "s", "patient": "p", "split": "train", "label": "normal"}
        rows = [{**full, **row} for row in rows]
        path = tmp_path / "manifest.csv"
        write_manifest(path, columns or list(dict.fromkeys(key for row in rows for key in row)), rows)
        return path

    return write


def test_what_a_row_says(manifest):
    path = manifest(
        {
            "view": "PA",
            "finding": "Mass|Pneumonia",
            "follow_up": "3",
            "fold": "2",
            "label": "pneumonia",
            "age_years": "58",
            "brixia_senior": "9",
            "brixia_junior": "6",
        }
    )
    (study,) = read_manifest(path)
    assert (study.view, study.finding, study.follow_up, study.fold) == ("PA", "Mass|Pneumonia", 3, 2)
    assert study.record.age_years == 58
    assert study.severity == pytest.approx(7.5 / 18)
    assert study.severity_readers == pytest.approx((0.5, 1 / 3))


def test_columns_that_are_not_there_are_unknown(manifest):
    (study,) = read_manifest(manifest({}))
    assert (study.view, study.finding, study.follow_up, study.fold) == ("", "", None, None)
    assert study.severity is None
    assert study.severity_readers == ()
    assert not study.record.known


@pytest.mark.parametrize(
    ("label", "allowed"),
    [
        *((label, {label}) for label in LABELS),
        ("benign", {"normal", "pneumonia", "covid", "fracture"}),
        ("abnormal", {"pneumonia", "covid", "fracture", "cancer"}),
        ("no_pneumonia", {"normal", "fracture", "cancer"}),
        ("unknown", set(LABELS)),
        ("normal|pneumonia", {"normal", "pneumonia"}),
    ],
)
def test_partial_labels(label, allowed):
    assert {name for name, may in zip(LABELS, allowed_findings(label), strict=True) if may} == allowed


def test_every_partial_label_leaves_something():
    assert all(any(allowed_findings(label)) for label in EXCLUDES)


@pytest.mark.parametrize("label", ["flu", "Normal", "normal|flu", "normal|normal", "normal|", "", "benign|cancer"])
def test_unknown_labels(label):
    with pytest.raises(DataError, match="is unknown; known: normal, pneumonia"):
        allowed_findings(label)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"image": "gone.png"}, r"row 3: .*gone\.png does not exist"),
        ({"label": "flu"}, "row 3: label 'flu' is unknown"),
        ({"split": "dev"}, "row 3: split 'dev' is not one of train, val, test"),
        ({"split": ""}, "row 3: split is empty.*mediscan data split"),
        ({"patient": ""}, "row 3: patient is empty"),
        ({"spo2_percent": "0.97"}, r"row 3: .*0\.97"),
        ({"age_years": "414"}, "row 3: .*414.*120"),
        ({"brixia_senior": "19"}, "row 3: brixia_senior '19' is not a number from 0 to 18"),
        ({"brixia_junior": "nan"}, "row 3: brixia_junior 'nan'"),
        ({"follow_up": "-1"}, "row 3: follow_up '-1' is not a whole number"),
        ({"split": "val"}, r"patient p of s is in train \(row 2\) and in val \(row 3\)"),
    ],
)
def test_a_bad_row_is_named(manifest, cells, message):
    with pytest.raises(DataError, match=message):
        read_manifest(manifest({}, cells))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lacks the columns image, source"),
        ("image,source,patient,split\n", "lacks the columns label"),
        ("image,source,patient,split,label\n", "has no rows"),
        ("image,source,patient,split,label,label\na,b,c,d,e,f\n", "a column stands twice"),
        ("image,source,patient,split,label\na.png,s,p,train,normal,more\n", "row 2: has 6 cells under 5 columns"),
    ],
)
def test_no_manifest_at_all(tmp_path, text, message):
    path = tmp_path / "m.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_manifest(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00image", b'image,source,patient,split,label\n"a'])
def test_unreadable_manifest(tmp_path, content):
    path = tmp_path / "m.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("train", "normal"), ("train", "cancer")], "no study is in split val"),
        ([("val", "normal"), ("test", "cancer")], "no study is in split train"),
        ([("train", "normal"), ("val", "cancer")], "every training study is labelled normal"),
    ],
)
def test_what_no_training_can_learn_from(manifest, rows, message):
    path = manifest(*({"split": split, "label": label, "patient": split} for split, label in rows))
    with pytest.raises(DataError, match=message):
        check_trainable(read_manifest(path), path)


def test_trainable(manifest):
    path = manifest({}, {"label": "cancer"}, {"split": "val", "patient": "q"})
    check_trainable(read_manifest(path), path)


def test_written_rows_read_back(manifest):
    path = manifest({"finding": 'says "mass", left', "note": "ü"}, {"finding": "a\nb", "note": ""})
    columns, rows = read_rows(path)
    assert columns[-2:] == ["finding", "note"]
    assert [row["finding"] for row in rows] == ['says "mass", left', "a\nb"]
    assert rows[0]["note"] == "ü"


def test_a_failed_write_keeps_what_was_there(manifest, tmp_path):
    path = manifest({})
    before = path.read_bytes()

    def rows():
        yield {"image": "b.png"}
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match="No space left on device"):
        write_manifest(path, COLUMNS, rows())
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.png", "manifest.csv"]


def test_boxes(tmp_path):
    write_boxes(
        tmp_path / "out" / "boxes.csv", [Box(tmp_path / "i" / "a.png", "mass", "NIH", 0.25, 0.5, 0.125, 1 / 3)]
    )
    with (tmp_path / "out" / "boxes.csv").open(newline="") as stream:
        header, row = csv.reader(stream)
    assert tuple(header) == BOX_COLUMNS
    assert row == ["../i/a.png", "mass", "NIH", "0.25000", "0.50000", "0.12500", "0.33333"]


def test_written_columns_hold_what_is_required():
    assert set(REQUIRED_COLUMNS) <= set(COLUMNS)
    assert len(set(COLUMNS)) == len(COLUMNS)


@pytest.mark.shared_data
def test_the_real_manifest(shared_data):
    studies = read_manifest(shared_data / "studies.csv")
    assert len(studies) == 3854
    both = [study for study in studies if len(study.severity_readers) == 2]
    assert both
    assert all(study.severity == pytest.approx(np.mean(study.severity_readers)) for study in both)
    check_trainable(studies, shared_data / "studies.csv")
    columns, _ = read_rows(shared_data / "studies.csv")
    assert set(columns) <= set(COLUMNS), "a manifest that MediScan writes has the columns of the real one"


@pytest.mark.shared_data
def test_real_boxes_have_our_columns(shared_data):
    with (shared_data / "boxes.csv").open(newline="") as stream:
        assert tuple(next(csv.reader(stream))) == BOX_COLUMNS
