"""The shipped bundle's card: figures of a cross-validation, of test and of val, each named as what it is."""

import json
from pathlib import Path

import pytest
import yaml
from small_manifest import small_config, write_manifest

from MediScanLib.config import load_config
from MediScanLib.errors import DataError
from MediScanLib.training.regions import NO_MARKS
from MediScanLib.training.shipping import CROSS_VALIDATION, TEXT, crossed_figures, ship

ROOT = Path(__file__).resolve().parents[2]
FIGURE = {"value": 0.81234, "low": 0.7, "high": 0.9}
CROSSED = {
    "within_source": [
        {"task": "pneumonia vs normal", "source": "nih", "studies": 800, "figures": {"AUC-ROC": FIGURE, "ECE": FIGURE}}
    ],
    "severity": [
        {"rater": "fused", "source": "cohen", "studies": 136, "figures": {"Pearson r": FIGURE}},
        {"rater": "junior reader", "source": "cohen", "studies": 136, "figures": {"Pearson r": FIGURE}},
    ],
    "localization": [
        {
            "rater": rater,
            "group": "nih boxes",
            "label": "pneumonia",
            "images": 35,
            "figures": {"pointing game": FIGURE},
        }
        for rater in ("model", "centered blob")
    ],
}


@pytest.fixture
def crossed(tmp_path) -> Path:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(CROSSED), encoding="utf-8")
    return path


def test_figures_of_the_folds(crossed):
    auc, calibration, severity, pointing = crossed_figures(crossed)
    assert (auc.name, auc.source, auc.split, auc.studies) == ("AUC-ROC", "nih", CROSS_VALIDATION, 800)
    assert (auc.value, auc.low, auc.high) == (0.8123, 0.7, 0.9)
    assert (calibration.name, calibration.task) == ("ECE", auc.task)
    assert (severity.name, severity.source, severity.studies) == ("Pearson r", "cohen", 136)
    assert (pointing.name, pointing.task, pointing.source) == ("pointing game", "map of pneumonia", "nih boxes")


@pytest.mark.parametrize("text", ["{}", "no json", '{"within_source": [{}], "severity": []}'])
def test_another_file_is_refused(tmp_path, text):
    path = tmp_path / "metrics.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"is not metrics\.json of"):
        crossed_figures(path)


def test_the_card_has_all_figures_and_the_words(crossed, tmp_path):
    manifest = write_manifest(tmp_path / "data", {"train": 16, "val": 8, "test": 12})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(small_config(epochs=1).model_dump()), encoding="utf-8")
    bundle = ship(manifest, recipe, tmp_path / "run", tmp_path / "models", crossed, NO_MARKS)
    card = bundle.card
    assert (card.name, card.version, card.title) == (TEXT.name, TEXT.version, TEXT.title)
    assert card.cautions == list(TEXT.cautions)
    assert [metric.split for metric in card.metrics][:5] == [CROSS_VALIDATION] * 4 + ["test"]
    assert {metric.split for metric in card.metrics} == {CROSS_VALIDATION, "test", "val"}
    # asked again, the trained network is taken as it is
    again = ship(manifest, recipe, tmp_path / "run", tmp_path / "again", None, NO_MARKS)
    assert again.sha256 == bundle.sha256
    assert {metric.split for metric in again.card.metrics} == {"test", "val"}


def test_without_a_test_split_nothing_is_trained(tmp_path):
    manifest = write_manifest(tmp_path / "data", {"train": 8, "val": 8})
    with pytest.raises(DataError, match="no study is in split test"):
        ship(manifest, tmp_path / "none.yaml", tmp_path / "run", tmp_path / "models", None, NO_MARKS)
    assert not (tmp_path / "run").exists()


def test_the_shipped_recipe_is_one():
    config = load_config(ROOT / "Resources" / "Recipes" / f"{TEXT.name}.yaml")
    assert config.model.weights == "imagenet"
