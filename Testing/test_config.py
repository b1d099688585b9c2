"""config.yaml: defaults, and errors that say what is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from MediScanLib.config import Config, load_config, parse_config
from MediScanLib.errors import ConfigError

ROOT = Path(__file__).resolve().parent.parent


def test_the_root_file_shows_every_default() -> None:
    shown = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    assert shown == Config().model_dump()
    assert load_config(ROOT / "config.yaml") == load_config() == Config()


def test_a_file_may_name_only_some_settings(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("model: {fusion: attention}\ntraining:\ninference: {max_batch_size: 2}\n", encoding="utf-8")
    config = load_config(path)
    assert (config.model.fusion, config.inference.max_batch_size) == ("attention", 2)
    assert config.training == Config().training


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.touch()
    assert load_config(path) == Config()


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "exponent.yaml"  # YAML 1.1 reads 1e-3 as text
    path.write_text("training: {learning_rate: 1e-3}", encoding="utf-8")
    assert load_config(path).training.learning_rate == 0.001


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": {"backbone": "vgg16"}}, ["model.backbone", "'vgg16'", "'resnet50'", "'efficientnet-lite0'"]),
        ({"model": {"backbon": "resnet50"}}, ["model.backbon ", "did you mean backbone?"]),
        ({"training": {"batch_size": 30, "accumulation_steps": 4}}, ["training.batch_size: 30", "4 parts"]),
        ({"training": {"monitor": "accuracy"}}, ["training.monitor", "'within_source_auc' or 'loss' or 'last'"]),
        ({"training": {"average_decay": 1}}, ["training.average_decay is 1", "less than 1"]),
        ({"training": {"augmentation": 3}}, ["training.augmentation is 3", "at most 2"]),
        ({"training": {"encoder_rate": 0}}, ["training.encoder_rate is 0", "more than 0"]),
        ({"training": {"batch_norm": "sync"}}, ["training.batch_norm", "'auto' or 'frozen' or 'batch'"]),
        ({"training": {"input_size": 16}}, ["training.input_size is 16", "at least 32"]),
        ({"training": {"deterministic": "sometimes"}}, ["training.deterministic", "true or false"]),
        ({"training": {"seed": 2**32}}, ["training.seed", "less than"]),
        ({"training": {"image_dropout": 1.0}}, ["training.image_dropout", "less than 1"]),
        ({"modle": {}}, ["modle", "did you mean model?", "model, training, inference"]),
        ({"training": {"dropout_rate": 0.1}}, ["training.dropout_rate", "did you mean model.dropout_rate?"]),
        ({"training": {"learning_rate": -1}}, ["training.learning_rate is -1", "more than 0"]),
        ({"training": {"learning_rate": float("nan")}}, ["training.learning_rate is nan", "a number"]),
        ({"training": {"batch_size": True}}, ["training.batch_size is True", "a whole number, at least 1"]),
        ({"training": {"batch_size": 1.5}}, ["training.batch_size is 1.5", "a whole number"]),
        ({"training": {"epochs": 2, "warmup_epochs": 3}}, ["training.warmup_epochs: 3", "epochs, 2"]),
        ({"inference": {"confidence_threshold": 1.2}}, ["inference.confidence_threshold is 1.2", "at most 1"]),
        ({"inference": {"explainability": "often"}}, ["inference.explainability is 'often'", "true or false"]),
        ({"inference": 3}, ["inference is 3", "a section with the keys", "max_batch_size"]),
        ({"model": {"spatial_dims": 4}}, ["model.spatial_dims is 4", "2 or 3"]),
        ({"model": {"spatial_dims": 3}}, ["model.backbone: 'efficientnet-lite0'", "2D", "'densenet121'"]),
        ({"model": {"spatial_dims": 3, "backbone": "resnet50"}}, ["model.weights: 'imagenet'", "'none'"]),
        ({"model": {"attention_heads": 7}}, ["model.attention_heads: 7", "256"]),
        ({"model": {"dropout_rate": 1}}, ["model.dropout_rate is 1", "less than 1"]),
        ({"model": {"weights": None}}, ["model.weights is None", "text"]),
        ({3: {}}, ["3 (3) is no setting", "allowed: model"]),
        ({"model": {3: 4}}, ["model.3 (3) is no setting", "allowed: backbone"]),
        (["model"], ["sections model, training, inference", "list"]),
    ],
)
def test_errors_name_key_value_and_what_is_allowed(settings: object, words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(settings)
    for word in words:
        assert word in str(raised.value)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config({"model": {"fusion": "sum"}, "training": {"epochs": 0}}, source="mine.yaml")
    assert str(raised.value).startswith("mine.yaml: ")
    assert "model.fusion" in str(raised.value)
    assert "training.epochs" in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"model: !!python/object/apply:os.getcwd []", "not valid YAML"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        load_config(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*No such file"):
        load_config(tmp_path / "nowhere.yaml")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from(["model", "training", "inference", "epochs", "weights", "fusion", "x"]) | SCALARS


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4)))
def test_whatever_comes_in_a_config_or_a_config_error_comes_out(settings: object) -> None:
    try:
        assert isinstance(parse_config(settings), BaseModel)
    except ConfigError as error:
        assert str(error)


def test_checking_a_configuration_does_not_load_torch() -> None:
    code = "import sys; from MediScanLib.config import load_config; load_config(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
