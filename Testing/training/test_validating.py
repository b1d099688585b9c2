"""Validation of models and explanations: from files to files, resumed after a kill, all numbers finite."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import roc_auc_score
from small_manifest import write_boxes, write_manifest

from MediScanLib.commands.validate import validate as command
from MediScanLib.errors import DataError, UsageError
from MediScanLib.prediction.heatmaps import AxisMap, HeatMaps
from MediScanLib.report.tile import draw_tile
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.record import FIELDS, ClinicalRecord
from MediScanLib.training.datasets import read_manifest
from MediScanLib.training.evaluating.asking import ask
from MediScanLib.training.regions import MarkFiles
from MediScanLib.training.validating import run
from MediScanLib.training.validating.cases import choose_cases, stress_studies
from MediScanLib.training.validating.degradations import DEGRADATIONS, compress, crop, shifted
from MediScanLib.training.validating.grids import (
    hot_overlap,
    pack,
    pooled,
    rank_correlation,
    shifted_back,
    unpack,
)
from MediScanLib.training.validating.journal import Journal
from MediScanLib.training.validating.means import mean_figures
from MediScanLib.training.validating.models import name_models
from MediScanLib.training.validating.ranking import Ranking
from MediScanLib.training.validating.records import contradicting, with_fewer_fields
from MediScanLib.training.validating.request import Request
from MediScanLib.training.validating.stress import AS_IS
from MediScanLib.training.validating.stress import FIELDS as KNOWN_FIELDS
from toys import make_predictor, make_random_predictor

METHODS = ("gradcam", "layercam")
EVIL = "<script>alert('x')</script>"


def picture(shape=(1, 40, 56), seed=0):
    pixels = np.random.default_rng(seed).normal(100, 20, shape).astype(np.float32)
    return MedicalImage(pixels, spacing=(0.5, 0.5, 1.0), modality="CR")


def finite_only(text):
    """Numbers that JSON does not know are an error."""

    def refuse(name):
        raise AssertionError(f"{name} in the file")

    return json.loads(text, parse_constant=refuse)


# Damage to images


@given(
    shape=st.tuples(st.just(1), st.integers(2, 40), st.integers(2, 40)),
    damage=st.sampled_from(DEGRADATIONS),
    data=st.data(),
)
def test_damage_is_finite_seeded_and_leaves_the_image_as_it_was(shape, damage, data):
    pixels = data.draw(hnp.arrays(np.float32, shape, elements=st.floats(-2000, 4000, width=32)))
    image, degree = MedicalImage(pixels.copy()), data.draw(st.sampled_from(damage.degrees))
    one, again = damage(image, degree, "a", 1), damage(image, degree, "a", 1)
    assert np.isfinite(one.pixels).all()
    assert np.array_equal(one.pixels, again.pixels)
    assert np.array_equal(image.pixels, pixels)
    assert damage.name == "crop" or one.shape == image.shape


@pytest.mark.parametrize("damage", DEGRADATIONS, ids=lambda damage: damage.name)
def test_damage_grows_with_its_degree(damage):
    """Further from the image, or less of it left."""
    image = picture()
    pixels = [damage(image, degree, "a").pixels for degree in damage.degrees]
    if damage.name == "crop":
        harm = [-p.size for p in pixels]
    else:
        harm = [float(np.abs(p - image.pixels).mean()) for p in pixels]
    assert harm == sorted(harm) and harm[0] != harm[-1]


def test_noise_has_the_stated_size_and_differs_between_studies():
    noise = DEGRADATIONS[0]
    image = picture((1, 200, 200))
    low, high = np.percentile(image.pixels, (0.5, 99.5))
    added = noise(image, 10, "a").pixels - image.pixels
    assert added.std() == pytest.approx(0.1 * (high - low), rel=0.05)
    assert not np.array_equal(added, noise(image, 10, "b").pixels - image.pixels)


def test_a_crop_keeps_its_place_in_space():
    image = picture()
    cut = crop(image, 25, np.random.default_rng())
    assert cut.shape == (1, 20, 28)
    assert cut.to_physical((0, 0, 0)) == image.to_physical((0, 10, 14))


def test_hard_compression_of_an_even_image_is_that_image():
    image = MedicalImage(np.full((1, 16, 16), 7.0, np.float32))
    assert compress(image, 90, np.random.default_rng()).pixels == pytest.approx(7.0)


# Maps on one grid


def maps_of(values):
    values = np.asarray(values, np.float32)[None, None]
    same = AxisMap(1.0, 0.0)
    return HeatMaps(("covid",), values, (1, *values.shape[2:]), same, same, (0,), (1.0,))


@given(st.integers(-6, 6), st.integers(-6, 6))
def test_a_map_that_moves_with_its_image_is_the_same_map(rows, columns):
    before = np.random.default_rng(0).random((1, 30, 44)).astype(np.float32)
    after = shifted(MedicalImage(before), rows, columns).pixels
    one, other = shifted_back(maps_of(before[0]), maps_of(after[0]), "covid", (rows, columns))
    assert np.array_equal(one, other)
    assert rank_correlation(one, other) == pytest.approx(1)


def test_agreement_of_a_map_with_itself_with_its_opposite_and_with_nothing():
    ramp = np.arange(400, dtype=np.float32).reshape(1, 20, 20)
    assert rank_correlation(ramp, 3 * ramp + 1) == pytest.approx(1)
    assert rank_correlation(ramp, ramp.max() - ramp) == pytest.approx(-1)
    assert rank_correlation(ramp, np.zeros_like(ramp)) is None
    assert hot_overlap(ramp, ramp) == 1
    assert hot_overlap(ramp, ramp.max() - ramp) == 0
    assert hot_overlap(np.zeros_like(ramp), np.zeros_like(ramp)) is None
    assert hot_overlap(ramp, np.zeros_like(ramp)) == 0


def test_grids_cover_the_image_and_are_kept_as_they_are():
    heat = np.random.default_rng(0).random((20, 100, 130)).astype(np.float32)
    grid = pooled(heat)
    assert grid.shape == (16, 64, 64)
    assert grid.mean() == pytest.approx(heat.mean(), rel=0.01)
    assert np.array_equal(unpack(json.loads(json.dumps(pack(grid)))), grid)


# Figures


@given(st.integers(0, 10_000))
def test_the_ranking_is_the_auc_of_every_resample(seed):
    rng = np.random.default_rng(seed)
    truth = np.array([True, False, *(rng.random(12) < 0.5)])
    scores = rng.integers(0, 5, len(truth)) / 4  # with ties
    rows = np.concatenate([[0, 1], rng.integers(0, len(truth), len(truth))])
    ranking = Ranking(truth, [[score] for score in scores])
    assert ranking.auc(rows) == pytest.approx(roc_auc_score(truth[rows], scores[rows]))
    with pytest.raises(ValueError, match="one class"):
        ranking.auc(np.array([0, 0]))


def test_several_answers_are_drawn_alike():
    """Against the mean over every way to draw one answer a study."""
    truth = np.array([True, True, False])
    answers = [[0.2, 0.9], [0.5], [0.4, 0.6, 0.5]]
    drawn = [roc_auc_score(truth, [a, b, c]) for a in answers[0] for b in answers[1] for c in answers[2]]
    assert Ranking(truth, answers).auc(np.arange(3)) == pytest.approx(np.mean(drawn))


def test_means_leave_out_what_is_undefined():
    figures = mean_figures({"a": [1.0, None, 3.0], "b": [None, None, None]}, ["p", "q", "r"], 50)
    assert figures["a"].value == 2
    assert figures["a"].low >= 1
    assert "b" not in figures


# Records


def test_every_subset_of_the_known_fields_once():
    record = ClinicalRecord(age_years=60, sex="F", crp_mg_per_l=90)
    found = [(size, tuple(fewer.known)) for size, fewer in with_fewer_fields(record, "1", 0)]
    assert len(found) == len(set(found)) == 8
    assert all(len(known) == size for size, known in found)


def test_of_many_fields_some_subsets_of_each_size():
    values = {name: info.choices[0] if info.choices else info.maximum for name, info in FIELDS.items()}
    record = ClinicalRecord(**values)
    sizes = [size for size, _ in with_fewer_fields(record, "1", 0)]
    assert [sizes.count(size) for size in range(11)] == [1, 10, *[20] * 7, 10, 1]
    assert list(with_fewer_fields(record, "1", 0)) == list(with_fewer_fields(record, "1", 0))


def test_a_contradicting_record_keeps_age_and_sex(folder):
    ill = next(s for s in read_manifest(folder / "studies.csv") if s.label == "pneumonia")
    well = dataclasses.replace(ill, label="normal")
    assert contradicting(ill).age_years == contradicting(well).age_years == ill.record.age_years
    assert contradicting(ill).temperature_c < 37.5 < contradicting(well).temperature_c


# The journal


def test_the_journal_refuses_a_run_with_other_settings(tmp_path):
    path = tmp_path / "finished.jsonl"
    with Journal(path, {"steps": 10, "methods": ("gradcam",)}) as journal:
        journal.put(("a",), 1)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="steps was 10, now 20"):
        Journal(path, {"steps": 20, "methods": ("gradcam",)})
    assert path.read_bytes() == before


@given(st.integers(1, 60))
def test_a_line_that_was_cut_short_is_dropped(cut):
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "finished.jsonl"
        with Journal(path, {}) as journal:
            journal.put(("a",), [1.5, None])
            whole = path.stat().st_size
            journal.put(("b", "long"), "x" * 60)
        os.truncate(path, path.stat().st_size - cut)
        assert path.stat().st_size > whole
        with Journal(path, {}) as journal:
            assert journal.found == 1
            assert journal.get(("a",)) == [1.5, None]
            assert ("b", "long") not in journal
            journal.put(("b", "long"), "y")
        with Journal(path, {}) as journal:
            assert journal.get(("b", "long")) == "y"


@pytest.mark.parametrize(
    "content", [b"", b"nothing of ours\n", b'{"format":1,"identity":{}}\nbroken\n{"key":["a"]}\n']
)
def test_a_damaged_journal_is_an_error_and_is_left_alone(tmp_path, content):
    path = tmp_path / "finished.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        Journal(path, {})
    assert path.read_bytes() == content


def test_the_journal_holds_numbers_only(tmp_path):
    with Journal(tmp_path / "finished.jsonl", {}) as journal, pytest.raises(ValueError, match="JSON"):
        journal.put(("a",), math.nan)


# From files to files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six studies of train, four of val, eight of test, half of them with a bright blob in a box."""
    path = tmp_path_factory.mktemp("small")
    write_boxes(write_manifest(path, {"train": 6, "val": 4, "test": 8}, size=64))
    return path


def request_of(folder, output, **changes):
    settings = {"methods": METHODS, "steps": 3, "random_orders": 2, "resamples": 20}
    settings["marks"] = MarkFiles(folder / "boxes.csv")
    return Request(folder / "studies.csv", output, **(settings | changes))


def two_models():
    return [make_predictor(title=EVIL, cautions=[EVIL]), make_random_predictor("gated", name="other")]


@pytest.fixture(scope="module")
def validated(folder, tmp_path_factory):
    output = tmp_path_factory.mktemp("validated")
    summary = run.validate(request_of(folder, output), two_models(), draw_tile)
    return summary, output


def test_nothing_in_the_files_is_not_finite(validated):
    summary, output = validated
    figures = finite_only((output / run.FIGURES_FILE).read_text(encoding="utf-8"))
    assert figures["notice"]
    assert not summary.failures
    assert "nan" not in (output / run.CASES_FILE).read_text(encoding="utf-8").lower()
    finite_only("[" + ",".join((output / run.JOURNAL_FILE).read_text(encoding="utf-8").splitlines()) + "]")


def test_a_line_a_case_a_model_and_a_method(validated):
    _, output = validated
    with (output / run.CASES_FILE).open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * 2 * len(METHODS)
    assert {row["split"] for row in rows} == {"test"}
    assert {row["model"] for row in rows} == {"toy 1", "other 1"}
    assert all(0 <= float(row["iou"]) <= 1 and float(row["seconds"]) > 0 for row in rows)


def test_the_model_that_sees_brightness_points_at_the_blobs(validated):
    summary, _ = validated
    scores = {(row.model, row.method): row for row in summary.methods if row.group == "all"}
    toy = scores["toy 1", "gradcam"]
    assert toy.figures["pointing game"].value == 1
    assert toy.figures["relevance mass - area"].value > 0
    assert toy.threshold is not None
    blob = scores["", "centered blob"]
    assert blob.cases == toy.cases == 4
    assert blob.figures["IoU"].value < toy.figures["IoU"].value


def test_all_pairs_of_methods_and_of_models_are_compared(validated):
    summary, _ = validated
    found = {(row.kind, row.within, row.first, row.second) for row in summary.agreement}
    assert found == {
        *(("methods", model, *METHODS) for model in ("toy 1", "other 1")),
        *(("models", method, "toy 1", "other 1") for method in METHODS),
    }
    assert all(-1 <= row.figures["rank correlation"].value <= 1 for row in summary.agreement if row.undefined < 4)


def test_every_check_of_every_method_is_there(validated):
    summary, _ = validated
    assert {(row.model, row.method, row.perturbation) for row in summary.robustness} == {
        (model, method, name)
        for model in ("toy 1", "other 1")
        for method in METHODS
        for name in ("shift", "noise", "jpeg")
    }
    assert len(summary.shuffled) == 2 * len(METHODS) * 4
    conditions = {row.condition for row in summary.stress}
    assert conditions >= {damage.name for damage in DEGRADATIONS}
    assert conditions >= {AS_IS, KNOWN_FIELDS, "image hidden", "black image"}
    black = [row for row in summary.stress if row.condition == "black image"]
    assert all(row.figures["deferred"].value == 1 for row in black)
    assert all(row.figures["AUC-ROC - as is"].value == 0 for row in summary.stress if row.condition == AS_IS)


def test_the_page_needs_nothing_else_and_escapes_foreign_text(validated):
    _, output = validated
    page = (output / run.REPORT_FILE).read_text(encoding="utf-8")
    assert EVIL not in page and "&lt;script&gt;" in page
    assert page.count("<img ") == page.count('src="data:image/')
    assert "<script" not in page and "http" not in page.split("</style>")[1]
    for heading in ("Agreement", "Small changes", "what was learned", "Stress tests", "Gallery", "centered blob"):
        assert heading in page


def test_a_second_run_repeats_nothing(folder, validated):
    summary, output = validated
    before = (output / run.JOURNAL_FILE).read_bytes()
    again = run.validate(request_of(folder, output), two_models(), draw_tile)
    assert (output / run.JOURNAL_FILE).read_bytes() == before
    assert again.subject.resumed == len(before.splitlines()) - 1
    assert again.methods == summary.methods and again.stress == summary.stress


@pytest.mark.parametrize("change", [{"steps": 4}, {"methods": ("gradcam",)}, {"seed": 1}, {"split": "val"}])
def test_a_run_with_other_settings_is_refused(folder, validated, change):
    _, output = validated
    with pytest.raises(UsageError, match=f"other settings: {next(iter(change))} was"):
        run.validate(request_of(folder, output, **change), two_models(), draw_tile)


def test_another_model_is_refused(folder, validated):
    _, output = validated
    with pytest.raises(UsageError, match="models was"):
        run.validate(request_of(folder, output), two_models()[:1], draw_tile)


def test_killed_and_started_again_it_goes_on(folder, tmp_path):
    """A real kill -9 in the middle; what was finished stays as it is, and the figures are those of a whole run."""
    code = (
        "import sys; sys.path[:0] = [sys.argv[1]]\n"
        "from pathlib import Path\n"
        "from MediScanLib.report.tile import draw_tile\n"
        "from MediScanLib.training.regions import MarkFiles\n"
        "from MediScanLib.training.validating import run\n"
        "from MediScanLib.training.validating.request import Request\n"
        "from toys import make_predictor\n"
        "folder = Path(sys.argv[2])\n"
        "request = Request(folder / 'studies.csv', Path(sys.argv[3]), marks=MarkFiles(folder / 'boxes.csv'),\n"
        "    methods=('gradcam', 'layercam'), steps=3, random_orders=2, resamples=20)\n"
        "run.validate(request, [make_predictor()], draw_tile)\n"
    )
    testing = Path(__file__).resolve().parent.parent
    journal = tmp_path / "out" / run.JOURNAL_FILE
    process = subprocess.Popen([sys.executable, "-c", code, str(testing), str(folder), str(journal.parent)])
    try:
        deadline = time.monotonic() + 60
        while not (journal.is_file() and journal.read_bytes().count(b"\n") >= 6):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (journal.parent / run.REPORT_FILE).exists()
    kept = journal.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    again = run.validate(request_of(folder, journal.parent), [make_predictor()], draw_tile)
    assert journal.read_bytes().startswith(kept)
    keys = [json.dumps(json.loads(line).get("key")) for line in journal.read_bytes().splitlines()]
    assert len(keys) == len(set(keys))
    assert again.subject.resumed == kept.count(b"\n") - 1
    whole = run.validate(request_of(folder, tmp_path / "whole"), [make_predictor()], draw_tile)
    assert without_times(again.methods) == without_times(whole.methods)
    assert again.agreement == whole.agreement
    assert again.robustness == whole.robustness
    assert again.shuffled == whole.shuffled
    assert again.stress == whole.stress


def without_times(rows):
    return [
        dataclasses.replace(row, figures={name: f for name, f in row.figures.items() if name != "relative cost"})
        for row in rows
    ]


def test_an_image_that_cannot_be_read_is_told_and_tried_again(tmp_path):
    folder = tmp_path / "small"
    write_boxes(write_manifest(folder, {"train": 2, "val": 2, "test": 8}, size=64))
    broken = folder / "test-3.png"
    content = broken.read_bytes()
    broken.write_bytes(content[:200])
    request = request_of(folder, tmp_path / "out", checks=("stress",))
    summary = run.validate(request, [make_predictor()], draw_tile)
    assert {failure.what.split(",")[0] for failure in summary.failures} == {"test-3.png", "row 9"}  # header: row 1
    assert next(row for row in summary.methods).cases == 3
    assert "What could not be done" in (tmp_path / "out" / run.REPORT_FILE).read_text(encoding="utf-8")
    broken.write_bytes(content)
    summary = run.validate(request, [make_predictor()], draw_tile)
    assert not summary.failures
    assert next(row for row in summary.methods).cases == 4


def test_without_marks_the_methods_are_still_compared(folder, tmp_path):
    request = request_of(folder, tmp_path, marks=MarkFiles(), checks=(), cases=3)
    summary = run.validate(request, [make_predictor()], draw_tile)
    assert sum(summary.subject.cases.values()) == 3
    assert all("pointing game" not in row.figures for row in summary.methods)
    assert summary.agreement and not summary.stress and not summary.shuffled and not summary.robustness
    page = (tmp_path / run.REPORT_FILE).read_text(encoding="utf-8")
    assert "nothing is said of whether the maps lie on a lesion" in page
    assert "Stress tests" not in page
    finite_only((tmp_path / run.FIGURES_FILE).read_text(encoding="utf-8"))


def test_one_method_of_one_model_has_nothing_to_agree_with(folder, tmp_path):
    request = request_of(folder, tmp_path, methods=("gradcam",), checks=())
    summary = run.validate(request, [make_predictor()], draw_tile)
    assert not summary.agreement and not summary.differences
    assert "the order is that of the names" in (tmp_path / run.REPORT_FILE).read_text(encoding="utf-8")


def test_volumes_are_compared_and_stressed(tmp_path):
    folder = tmp_path / "volumes"
    write_manifest(folder, {"train": 2, "test": 4}, size=16, dims=3)
    request = Request(folder / "studies.csv", tmp_path / "out", methods=METHODS, steps=2, random_orders=1, resamples=5)
    summary = run.validate(request, [make_predictor(3, (16, 16, 16))], draw_tile)
    assert not summary.failures
    assert summary.stress and summary.agreement
    finite_only((tmp_path / "out" / run.FIGURES_FILE).read_text(encoding="utf-8"))


def test_a_split_without_a_finding_gives_an_empty_report(tmp_path):
    folder = tmp_path / "well"
    write_manifest(folder, {"train": 4, "test": 1}, size=32)  # the only one of test is normal
    request = Request(folder / "studies.csv", tmp_path / "out", resamples=5)
    summary = run.validate(request, [make_predictor()], draw_tile)
    assert not summary.methods and not summary.stress and not summary.failures
    page = (tmp_path / "out" / run.REPORT_FILE).read_text(encoding="utf-8")
    assert "No explanation was compared" in page and "there is no AUC to follow" in page


def test_nothing_of_train_is_ever_looked_at(folder):
    request = request_of(folder, folder / "never")
    studies = read_manifest(request.data)
    from MediScanLib.training.regions import regions_of

    cases = choose_cases(request, studies, regions_of(studies, request.marks))
    assert [case.split for case in cases] == ["val"] * 2 + ["test"] * 4
    assert {study.split for study in stress_studies(request, studies)} == {"test"}
    with pytest.raises(UsageError, match="learned from train"):
        dataclasses.replace(request, split="train").check()


def test_stress_studies_are_drawn_within_their_source_and_keep_every_label(folder):
    request = request_of(folder, folder / "never", stress_studies=2)
    studies = read_manifest(request.data)
    chosen = stress_studies(request, studies)
    assert sorted((study.source, study.label) for study in chosen) == sorted(
        (source, label) for source in ("left", "right") for label in ("normal", "pneumonia")
    )
    assert chosen == stress_studies(request, studies)


def test_the_same_model_twice_is_refused():
    with pytest.raises(UsageError, match="given twice"):
        name_models([make_predictor(), make_predictor()])
    with pytest.raises(UsageError, match="No model"):
        name_models([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("magic",)}, "no method 'magic'"),
        ({"methods": ("gradcam", "gradcam")}, "named twice"),
        ({"methods": ()}, "No method"),
        ({"checks": ("luck",)}, "no check 'luck'"),
    ],
)
def test_what_does_not_exist_is_refused_before_anything_is_made(folder, tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        run.validate(request_of(folder, tmp_path / "out", **change), [make_predictor()], draw_tile)
    assert not (tmp_path / "out").exists()


def test_all_fields_missing_is_the_image_alone(tmp_path):
    """Against what `mediscan evaluate` calls image only, for a model to which the values matter."""
    folder = tmp_path / "small"
    write_manifest(folder, {"train": 2, "test": 24}, size=32)
    predictor = make_random_predictor("gated", name="other")
    studies = [study for study in read_manifest(folder / "studies.csv") if study.split == "test"]
    columns = [{}] * len(studies)
    image_only = ask(predictor, predictor, studies, columns).probabilities
    request = Request(folder / "studies.csv", tmp_path / "out", checks=("stress",), resamples=5, gallery=0, cases=1)
    summary = run.validate(request, [predictor], draw_tile)
    compared = 0
    for row in summary.stress:
        if row.condition == KNOWN_FIELDS and row.degree == 0:
            rows = [i for i, study in enumerate(studies) if study.source == row.source]
            truth = [studies[i].label == "pneumonia" for i in rows]
            expected = roc_auc_score(truth, image_only["image only"][rows, 1])
            assert row.figures["AUC-ROC"].value == pytest.approx(expected, abs=0.02)
            compared += 1
    assert compared == 2
    assert np.abs(image_only["image only"] - image_only["fused"]).max() > 0.01


def test_marks_are_outlined_and_heat_is_not_stretched():
    image = MedicalImage(np.full((1, 60, 80), 100.0, np.float32))
    marked = np.zeros((60, 80), bool)
    marked[20:40, 20:40] = True
    plain, weak = draw_tile(image, 0), draw_tile(image, 0, np.full((4, 4), 0.05, np.float32))
    assert plain.size == (256, 192)
    difference = np.abs(np.asarray(plain, float) - np.asarray(weak, float)).max()
    assert 0 <= difference < 25
    outlined = np.asarray(draw_tile(image, 0, None, marked))
    assert (outlined == (0, 230, 255)).all(axis=2).any()
    assert (outlined[:, :50] == np.asarray(plain)[:, :50]).all()


# The command, and the real model


def test_command_on_real_studies(shared_data, tmp_path):
    """Two cases of the shipped model with readers' boxes, and one with a mask."""
    with (shared_data / "studies.csv").open(encoding="utf-8-sig", newline="") as stream:
        everything = list(csv.DictReader(stream))
    with (shared_data / "boxes.csv").open(encoding="utf-8-sig", newline="") as stream:
        boxed = {row["image"] for row in csv.DictReader(stream) if row["label"].lower() == "lung opacity"}
    chosen = [row for row in everything if row["image"] in boxed and row["split"] == "val"][:2]
    chosen += [row for row in everything if row["image"] in boxed and row["split"] == "test"][:2]
    normal = ("nih", "normal", "test")
    chosen += [row for row in everything if (row["source"], row["label"], row["split"]) == normal][:1]
    for row in chosen:
        row["image"] = str(shared_data / row["image"])
    manifest = tmp_path / "studies.csv"
    with manifest.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(chosen[0]))
        writer.writeheader()
        writer.writerows(chosen)
    result = CliRunner().invoke(
        command,
        [
            *("--data", str(manifest), "--boxes", str(shared_data / "boxes.csv"), "--device", "cpu"),
            *("--methods", "gradcam,layercam", "--checks", "robustness,stress", "--resamples", "20"),
            *("--output", str(tmp_path / "out")),
        ],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    figures = finite_only((tmp_path / "out" / run.FIGURES_FILE).read_text(encoding="utf-8"))
    assert figures["subject"]["cases"] == {"nih boxes": 2}
    assert figures["subject"]["models"][0]["same_manifest"] is False
    assert any("another manifest" in text for text in figures["cautions"])
    assert "centered blob" in result.output
    steady = {row["perturbation"]: row["figures"]["rank correlation"]["value"] for row in figures["robustness"]}
    assert all(value > 0.5 for value in steady.values())


def test_command_refuses_an_unknown_method(folder, tmp_path):
    from MediScanLib.cli import main

    result = CliRunner().invoke(
        main,
        [
            *("validate", "--data", str(folder / "studies.csv"), "--methods", "gradcam,magic"),
            *("--output", str(tmp_path / "out")),
        ],
    )
    assert result.exit_code == 2
    assert "magic" in result.output and "layercam" in result.output
    assert not (tmp_path / "out").exists()
