"""Cross-validation: every study is answered once, by a model that has not seen its patient."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from small_manifest import small_config, write_manifest

from MediScanLib.commands.evaluate import evaluate
from MediScanLib.errors import DataError, UsageError
from MediScanLib.network.bundle import load_bundle
from MediScanLib.progress import CallbackProgress, SilentProgress
from MediScanLib.training.folds import CALIBRATION_SHARE, FOLDS_FILE, prepare_folds, train_fold


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data"), {"train": 48})


def patients(studies) -> set[tuple[str, str]]:
    return {(study.source, study.patient) for study in studies}


def test_every_study_is_held_out_once_and_its_patient_is_nowhere_else(manifest, tmp_path):
    folds = prepare_folds(manifest, 3, tmp_path / "out")
    held_out = [study for fold in folds for study in fold.studies("test")]
    assert len(held_out) == len({study.image for study in held_out}) == 48
    for fold in folds:
        parts = [patients(fold.studies(split)) for split in ("train", "val", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts))
        learned = len(fold.studies("train")) + len(fold.studies("val"))
        assert len(fold.studies("val")) / learned == pytest.approx(CALIBRATION_SHARE, abs=0.07)


def test_rows_keep_their_numbers(manifest, tmp_path):
    (first, *_) = prepare_folds(manifest, 3, tmp_path / "out")
    with manifest.open(encoding="utf-8", newline="") as stream:
        names = {number: row["image"] for number, row in enumerate(csv.DictReader(stream), start=2)}
    assert {study.row: study.image.name for study in first.studies("test")}.items() <= names.items()


def test_folds_are_made_once_and_kept(manifest, tmp_path):
    before = [fold.studies("test") for fold in prepare_folds(manifest, 3, tmp_path / "out", seed=0)]
    stored = (tmp_path / "out" / FOLDS_FILE).read_bytes()
    after = [fold.studies("test") for fold in prepare_folds(manifest, 3, tmp_path / "out", seed=5)]
    assert before == after
    assert stored == (tmp_path / "out" / FOLDS_FILE).read_bytes()


def test_folds_of_the_manifest_are_taken_as_they_are(manifest, tmp_path):
    prepare_folds(manifest, 3, tmp_path / "first")
    given = tmp_path / "first" / FOLDS_FILE
    again = prepare_folds(given, 3, tmp_path / "second")
    assert not (tmp_path / "second" / FOLDS_FILE).exists()
    assert [len(fold.studies("test")) for fold in again] == [16, 16, 16]
    with pytest.raises(DataError, match="has 3 folds, not 4"):
        prepare_folds(given, 4, tmp_path / "third")


def test_a_finished_fold_is_not_trained_again(manifest, tmp_path):
    (fold, *_) = prepare_folds(manifest, 3, tmp_path / "out")
    arguments = small_config(epochs=1), tmp_path / "cache", torch.device("cpu")
    bundle = train_fold(fold, *arguments, SilentProgress())
    stages: list[str] = []
    again = train_fold(fold, *arguments, CallbackProgress(lambda stage, *_: stages.append(stage)))
    assert again.sha256 == bundle.sha256
    assert not stages


def test_a_fold_of_another_recipe_is_not_taken_for_this_one(manifest, tmp_path):
    (fold, *_) = prepare_folds(manifest, 3, tmp_path / "out")
    rest = tmp_path / "cache", torch.device("cpu"), SilentProgress()
    train_fold(fold, small_config(epochs=1), *rest)
    train_fold(fold, small_config(epochs=1, workers=1), *rest)  # who loads images changes nothing
    with pytest.raises(UsageError, match=r"another training\.epochs, training\.learning_rate\."):
        train_fold(fold, small_config(epochs=2, learning_rate=0.5), *rest)


def test_bad_boxes_are_told_before_anything_is_trained(manifest, tmp_path):
    (tmp_path / "boxes.csv").write_text("image,label\n", encoding="utf-8")
    arguments = ["--data", manifest, "--folds", 2, "--boxes", tmp_path / "boxes.csv", "--output", tmp_path / "out"]
    result = CliRunner().invoke(evaluate, [str(part) for part in arguments])
    assert isinstance(result.exception, DataError)
    assert "columns" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_the_command_pools_the_folds(tmp_path):
    manifest = write_manifest(tmp_path / "data", {"train": 80})
    config = tmp_path / "small.yaml"
    config.write_text(yaml.safe_dump(small_config(epochs=1).model_dump()), encoding="utf-8")
    out = tmp_path / "out"
    arguments = ["--data", manifest, "--folds", 2, "--config", config, "--device", "cpu", "--resamples", 20]
    result = CliRunner().invoke(evaluate, [str(part) for part in [*arguments, "--output", out]])
    assert result.exit_code == 0, result.output
    with (out / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["image"].rsplit("/", 1)[-1] for row in rows) == sorted(
        p.name for p in manifest.parent.glob("*.png")
    )
    assert {row["fold"] for row in rows} == {"0", "1"}
    figures = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert figures["subject"]["split"] == "2 folds, each held out in turn"
    assert (figures["subject"]["model"], figures["subject"]["version"]) == ("Cross-validation of small", "")
    assert sum(row["studies"] for row in figures["within_source"]) == 80
    assert any(row["shortcut"] == "source alone" for row in figures["shortcuts"])
    assert {load_bundle(out / f"fold-{k}" / f"fold-{k}").name for k in (0, 1)} == {"fold-0", "fold-1"}
    assert "zeros" in figures["subject"]["hidden_image"]
    assert "Learning curves" in (out / "report.html").read_text(encoding="utf-8")
    assert all(f"fold {number}, epoch 1: train" in result.output for number in (0, 1))


def test_folds_and_a_finished_model_exclude_each_other(manifest, tmp_path):
    common = ["--data", str(manifest), "--output", str(tmp_path / "out")]
    for wrong in (["--folds", "2", "--model", "mediscan-general"], ["--folds", "2", "--split", "val"]):
        result = CliRunner().invoke(evaluate, [*common, *wrong])
        assert result.exit_code == 2
        assert "leave out --split, --model" in result.output
    result = CliRunner().invoke(evaluate, [*common, "--cache", str(tmp_path)])
    assert result.exit_code == 2
    assert "--cache is for --folds" in result.output
