"""Training images turned and inverted, and what a network learns from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_manifest import small_config, write_manifest

from MediScanLib.network.card import InputSpec
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.network.presentation import PRESENTATIONS
from MediScanLib.prediction.preprocessing import prepare_slices
from MediScanLib.progress import SilentProgress
from MediScanLib.study.image import MedicalImage
from MediScanLib.training.answering import Split
from MediScanLib.training.clinical import clinical_statistics
from MediScanLib.training.datasets import read_manifest
from MediScanLib.training.loading import PreparedImages
from MediScanLib.training.novelty import learn_novelty
from MediScanLib.training.presentation import learn_presentation, lies_freely, presented

SPEC = InputSpec(size=(32, 32), mean=0.4, std=0.5)
CPU = torch.device("cpu")


def ramp(rows: int, columns: int) -> MedicalImage:
    """Brighter to the right and, more slowly, to the bottom; nowhere as dark as a border."""
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    return MedicalImage(pixels=(50 + 3 * x + y)[None], source="ramp")


@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (64, 40), (24, 64)])
@pytest.mark.parametrize("name", PRESENTATIONS)
def test_a_prepared_image_is_presented_as_if_it_had_been_stored_so(name, rows, columns):
    image = ramp(rows, columns)
    stored = {
        "upside_down": np.rot90(image.pixels, 2, (1, 2)),
        "turned_left": np.rot90(image.pixels, 1, (1, 2)),
        "turned_right": np.rot90(image.pixels, 3, (1, 2)),
        "inverted": 500 - image.pixels,
    }[name]
    wanted = prepare_slices(MedicalImage(pixels=stored, source="ramp"), SPEC, (0,)).tensor
    made = presented(prepare_slices(image, SPEC, (0,)).tensor, name, SPEC)
    # the darkest percentile of the picture may be taken for border, or the border's corner for the picture
    assert float(((made - wanted).abs() < 0.1).float().mean()) > 0.97


def test_only_known_presentations_are_made():
    image = torch.zeros(1, 1, 32, 32)
    assert torch.equal(presented(image, "upright", SPEC), image)
    with pytest.raises(ValueError, match="mirrored"):
        presented(image, "mirrored", SPEC)


def test_limbs_lie_freely(tmp_path):
    study = read_manifest(write_manifest(tmp_path, {"train": 1}))[0]
    free = {part: lies_freely(replace(study, body_part=part)) for part in ("EXTREMITY", "Hand", "CHEST", "BREAST", "")}
    assert free == {"EXTREMITY": True, "Hand": True, "CHEST": False, "BREAST": False, "": False}


def splits_of(folder: Path, spec: InputSpec, dims: int = 2) -> list[Split]:
    manifest = write_manifest(folder / "data", {"train": 24, "val": 12}, dims=dims, size=32)
    studies = read_manifest(manifest)
    statistics = clinical_statistics([study for study in studies if study.split == "train"])
    return [
        Split.of(members, PreparedImages(members, spec, folder / "cache"), statistics)
        for members in ([s for s in studies if s.split == split] for split in ("train", "val"))
    ]


def test_a_network_learns_how_images_are_presented_together_with_its_references(tmp_path):
    network = FusionNetwork.build(small_config().model)
    train, val = splits_of(tmp_path, SPEC)
    limit = learn_novelty(network, train, val, SPEC, CPU, SilentProgress())
    novelty = network.novelty
    assert limit.threshold > 0
    assert novelty is not None and novelty.presentation is not None
    inverted = torch.cat([presented(train.images[i].float()[None] / 0.5 - 0.8, "inverted", SPEC) for i in range(24)])
    upright = torch.cat([train.images[i].float()[None] / 0.5 - 0.8 for i in range(24)])
    network.eval()
    with torch.no_grad():
        odds = [
            novelty.presentation.log_odds(network.features(images).flatten(2).mean(2))[:, -1].mean()
            for images in (upright, inverted)
        ]
    assert odds[1] > odds[0] + 1


def test_pictures_that_are_not_square_and_volumes_are_not_asked_how_they_lie(tmp_path):
    for spec in (InputSpec(size=(32, 48)), InputSpec(size=(32, 32, 32))):
        network = FusionNetwork.build(small_config(len(spec.size)).model)
        train, val = splits_of(tmp_path / str(len(spec.size)), spec, len(spec.size))
        assert learn_presentation(network, train, val, spec, CPU, SilentProgress()) is None
