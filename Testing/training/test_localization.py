"""Heat maps scored on readers' marks: which images, at which threshold, beside a blob and a second reader."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from MediScanLib.errors import DataError
from MediScanLib.study.record import ClinicalRecord
from MediScanLib.training.datasets import Study
from MediScanLib.training.evaluating.localization import (
    BLOB,
    MODEL,
    THRESHOLDS,
    Localized,
    best_threshold,
    localize,
    readers_agreement,
    summarize_localization,
    wanted_regions,
)
from MediScanLib.training.evaluating.randomization import parameter_randomization
from MediScanLib.training.regions import NO_COPY, Region, read_boxes, read_lesions
from toys import make_predictor


def region(tmp_path, split="val", boxes=None, name="a.png", label="pneumonia"):
    return Region(tmp_path / name, ClinicalRecord(), name, split, "nih boxes", label, boxes or {})


def test_threshold_is_the_best_on_val(tmp_path):
    curve = tuple(1 - abs(threshold - 0.35) for threshold in THRESHOLDS)
    item = Localized(region(tmp_path), "pneumonia", 0.1, {}, {}, {MODEL: curve})
    assert best_threshold([item], MODEL) == 0.35
    assert best_threshold([], MODEL) is None


def test_training_images_are_never_scored(tmp_path):
    splits = ["train", "val", "test", NO_COPY]
    regions = [region(tmp_path, split) for split in splits]
    assert [r.split for r in wanted_regions(regions, "test")] == ["val", "test", NO_COPY]
    assert [r.split for r in wanted_regions(regions, "val")] == ["val"]
    assert [r.split for r in wanted_regions(regions, "train")] == ["val"]


def write_csv(path, rows):
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def bright_square(path, rows, columns, shape=(64, 96)):
    pixels = np.full(shape, 20, np.uint8)
    pixels[rows, columns] = 240
    Image.fromarray(pixels).save(path)


def study_of(path, label="pneumonia", split="test", number=2):
    return Study(path, "nih", "", path.stem, split, label, "CR", "CHEST", ClinicalRecord(), None, number)


def test_a_model_that_sees_brightness_finds_the_bright_box(tmp_path):
    """Two images off center: the toy finds both squares, the blob none."""
    images = tmp_path / "images"
    images.mkdir()
    places = {"a": (8, 8), "b": (40, 68)}
    rows, studies = [], []
    for number, (name, (top, left)) in enumerate(places.items()):
        path = images / f"{name}.png"
        bright_square(path, slice(top, top + 16), slice(left, left + 16))
        studies.append(study_of(path, split=("val", "test")[number], number=number + 2))
        rows.append(
            {
                **{"image": f"images/{name}.png", "label": "Lung Opacity", "reader": "R"},
                **{"x": left / 96, "y": top / 64, "width": 16 / 96, "height": 16 / 64},
            }
        )
    regions = read_boxes(write_csv(tmp_path / "boxes.csv", rows), studies)
    assert regions[0].marked((64, 96)).sum() == 16 * 16
    # the toy's cells are four pixels of its input
    localized = localize(make_predictor(size=(64, 96)), regions)
    model, blob = summarize_localization([localized], "test", 50)
    assert (model.rater, blob.rater, model.images) == (MODEL, BLOB, 1)
    assert model.figures["pointing game"].value == 1
    assert blob.figures["pointing game"].value == 0
    assert model.figures["pointing game - blob's"].value == 1
    assert model.figures["IoU"].value > 0.7
    assert model.figures["relevance mass"].value > blob.figures["relevance mass"].value
    assert model.area == pytest.approx(1 / 24)


def test_second_readers_are_scored_against_each_other(tmp_path):
    same = {"A": [(0.1, 0.1, 0.2, 0.2)], "B": [(0.1, 0.1, 0.2, 0.2)]}
    apart = {"A": [(0.1, 0.1, 0.2, 0.2)], "B": [(0.6, 0.6, 0.2, 0.2)]}
    alone = {"A": [(0.1, 0.1, 0.2, 0.2)]}
    boxes = [region(tmp_path, boxes=b, name=str(i)) for i, b in enumerate((same, apart, alone))]
    (row,) = readers_agreement(boxes, (100, 100), 50)
    assert row.images == 2
    assert [row.figures[name].value for name in ("pointing game", "IoU", "relevance mass")] == [0.5, 0.5, 0.5]


def test_boxes_of_other_findings_are_left_out(tmp_path):
    (tmp_path / "images").mkdir()
    row = {"image": "images/a.png", "reader": "R", "x": 0.1, "y": 0.1, "width": 0.2, "height": 0.2}
    rows = [{**row, "label": "cardiomegaly"}, {**row, "label": "pneumonia", "x": 0.5}]
    (found,) = read_boxes(write_csv(tmp_path / "boxes.csv", rows), [study_of(tmp_path / "images" / "a.png")])
    assert found.boxes == {"R": [(0.5, 0.1, 0.2, 0.2)]}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"x": 0.9}, "row 2.*not inside"), ({"width": "wide"}, "row 2.*four numbers"), ({"height": 0}, "row 2")],
)
def test_bad_boxes_name_their_row(tmp_path, change, message):
    (tmp_path / "images").mkdir()
    row = {"image": "images/a.png", "label": "pneumonia", "reader": "R", "x": 0.1, "y": 0.1, "width": 0.2}
    rows = [{**row, "height": 0.2, **change}]
    with pytest.raises(DataError, match=message):
        read_boxes(write_csv(tmp_path / "boxes.csv", rows), [study_of(tmp_path / "images" / "a.png")])


def test_lesion_copies_know_their_split(tmp_path):
    for name in ("a", "b"):
        bright_square(tmp_path / f"{name}.png", slice(0, 8), slice(0, 8))
        Image.fromarray(np.full((4, 4), 255, np.uint8)).save(tmp_path / f"{name}-mask.png")
    rows = [{"image": f"{name}.png", "mask": f"{name}-mask.png"} for name in ("a", "b")]
    path = write_csv(tmp_path / "lesions.csv", rows)
    copy, other = read_lesions(path, [study_of(tmp_path / "elsewhere" / "a.jpg", "covid", "train")])
    assert (copy.split, copy.label) == ("train", "covid")
    assert (other.split, other.label) == (NO_COPY, "")
    assert wanted_regions([copy, other], "test") == [other]
    assert copy.marked((64, 96)).all()
    (tmp_path / "b-mask.png").unlink()
    with pytest.raises(DataError, match=r"row 3.*b-mask\.png does not exist"):
        read_lesions(path, [])


def test_shuffling_the_head_changes_maps_and_not_the_model(tmp_path):
    """With one image channel a shuffled disease head gives pneumonia a map of another row: the same, or none."""
    bright_square(tmp_path / "a.png", slice(8, 24), slice(8, 24))
    predictor = make_predictor()
    before = {name: value.clone() for name, value in predictor.network.state_dict().items()}
    rows = parameter_randomization(predictor, [(tmp_path / "a.png", ClinicalRecord(), "pneumonia")], 20)
    by_stage = {row.stage: row for row in rows}
    assert by_stage["encoder"].similarity.value == pytest.approx(1)  # an average has nothing to shuffle
    assert all(torch.equal(value, before[name]) for name, value in predictor.network.state_dict().items())
