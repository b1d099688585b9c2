"""The same command trains on volumes."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from small_manifest import small_config, write_manifest

from MediScanLib.commands.train import train
from MediScanLib.errors import DataError
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.study.reading import read_image
from MediScanLib.training.datasets import read_manifest
from MediScanLib.training.recipe import TrainingRun, train_bundle


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("volumes"), {"train": 8, "val": 4}, dims=3, size=40)


def test_volumes_are_trained_to_a_bundle_that_the_predictor_loads(manifest, tmp_path) -> None:
    (tmp_path / "config.yaml").write_text(small_config(3, epochs=1, frozen_epochs=0).model_dump_json(), "utf-8")
    options = ["--data", str(manifest), "--config", str(tmp_path / "config.yaml"), "--device", "cpu"]
    result = CliRunner().invoke(train, [*options, "--output", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    predictor = Predictor.load(str(tmp_path / "out" / "mediscan-trained"), "cpu")
    card = predictor.bundle.card
    assert (card.network.spatial_dims, card.input.size, card.input.modalities) == (3, (32, 32, 32), ["CT"])
    study = read_manifest(manifest)[1]
    image = read_image(study.image)
    prediction = predictor(image, study.record)
    assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-3)
    assert prediction.maps is not None


def test_a_single_slice_cannot_train_a_3d_network(tmp_path) -> None:
    flat = write_manifest(tmp_path / "flat", {"train": 4, "val": 4})
    run = TrainingRun(flat, tmp_path / "out", small_config(3), "toy", tmp_path / "cache")
    with pytest.raises(DataError, match=r"row 2.*single slice.*spatial_dims: 2"):
        train_bundle(run, torch.device("cpu"))
