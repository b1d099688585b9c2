"""Teaching where the evidence lies: marks come to the network as its images do, and evidence moves into them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from small_manifest import small_config, write_boxes, write_manifest

from MediScanLib.commands.train import train
from MediScanLib.config import TrainingConfig
from MediScanLib.errors import ConfigError, DataError, UsageError
from MediScanLib.network.card import InputSpec
from MediScanLib.network.encoders import build_encoder
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.prediction.activation import class_activation_maps
from MediScanLib.prediction.preprocessing import prepare_slices
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import ClinicalRecord
from MediScanLib.training.augmentation import Augmentation
from MediScanLib.training.datasets import Study, read_manifest
from MediScanLib.training.loading import PreparedImages, TrainingImages
from MediScanLib.training.location import evidence, location_loss, marks_on_input
from MediScanLib.training.objective import Targets, TwoPassObjective
from MediScanLib.training.recipe import TrainingRun, train_bundle
from MediScanLib.training.regions import MarkFiles, Region, regions_of
from MediScanLib.training.sampling import Draw

CPU = torch.device("cpu")
SPEC = InputSpec(size=(64, 64))


def study_of(path: Path, label: str = "pneumonia") -> Study:
    return Study(path, "one", "", path.stem, "train", label, "CR", "CHEST", ClinicalRecord(), None, 2)


def region_of(path: Path, label: str = "pneumonia", **marks) -> Region:
    return Region(path, ClinicalRecord(), "p", "train", "boxes", label, marks.pop("boxes", {}), **marks)


# marks on the network's input


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(30, 200),
    columns=st.integers(30, 200),
    corner=st.tuples(st.floats(0, 0.6), st.floats(0, 0.6)),
    extent=st.tuples(st.floats(0.2, 0.4), st.floats(0.2, 0.4)),
)
def test_marks_lie_where_the_prepared_image_shows_them(tmp_path_factory, rows, columns, corner, extent) -> None:
    path = tmp_path_factory.mktemp("marks") / "image.png"
    region = region_of(path, boxes={"one": [(corner[0], corner[1], extent[0], extent[1])]})
    Image.fromarray(region.marked((rows, columns)).astype(np.uint8) * 255).save(path)
    marks = marks_on_input([region], [study_of(path)], SPEC)[0]
    seen = prepare_slices(read_image(path), SPEC, (0,)).tensor[0] * SPEC.std + SPEC.mean
    assert marks.shape == (1, 64, 64)
    clear = (seen < 0.25) | (seen > 0.75)  # away from the blurred edge
    assert torch.equal(marks[clear] > 0.5, seen[clear] > 0.5)


def test_only_marks_of_the_own_finding_count_and_several_are_joined(tmp_path) -> None:
    for name in ("a", "b", "c"):
        Image.fromarray(np.full((64, 64), 90, np.uint8)).save(tmp_path / f"{name}.png")
    studies = [study_of(tmp_path / "a.png"), study_of(tmp_path / "b.png", "covid"), study_of(tmp_path / "c.png")]
    (tmp_path / "copies").mkdir()
    drawn = np.zeros((32, 32), np.uint8)
    drawn[:, 16:] = 255
    Image.fromarray(drawn).save(tmp_path / "mask.png")
    found = marks_on_input(
        [
            region_of(tmp_path / "a.png", boxes={"one": [(0, 0, 0.25, 1)]}),
            region_of(tmp_path / "copies" / "a.jpg", mask=tmp_path / "mask.png"),  # a copy, half as large
            region_of(tmp_path / "b.png", boxes={"one": [(0, 0, 1, 1)]}),  # a covid study, a box of pneumonia
            region_of(tmp_path / "copies" / "c.png", boxes={"one": [(0, 0, 1, 1)]}),  # a box on another image
            region_of(tmp_path / "elsewhere.png", boxes={"one": [(0, 0, 1, 1)]}),
        ],
        studies,
        SPEC,
    )
    assert list(found) == [0]
    assert found[0][0, 0].tolist() == [1] * 16 + [0] * 16 + [1] * 32


def test_marks_move_with_the_image_and_leave_it_as_it_was() -> None:
    image = torch.full((1, 48, 48), 0.1)
    image[:, 10:20, 12:22] = 0.9
    marks = (image > 0.5).float()
    for kind in ("radiograph", "limb radiograph"):
        augmentation = Augmentation(kind, (48, 48))
        for seed in range(30):
            both = augmentation(torch.cat([image, marks]), seed)
            assert torch.equal(both[:1], augmentation(image, seed))
            middle = both[0] > (both[0].max() + both[0].median()) / 2
            joined = (middle & (both[1] > 0.5)).sum() / (middle | (both[1] > 0.5)).sum()
            assert float(joined) > 0.7, (kind, seed)


def test_a_draw_tells_the_share_of_every_cell(tmp_path) -> None:
    manifest = write_manifest(tmp_path / "data", {"train": 4})
    studies = read_manifest(manifest)
    spec = InputSpec(size=(64, 64))
    marks = torch.zeros(1, 64, 64)
    marks[:, :32, 32:48] = 1
    images = TrainingImages(
        PreparedImages(studies, spec, tmp_path / "cache"), studies, spec, 0, marks={1: marks}, stride=32
    )
    assert images[Draw(1, 5, True)]["marks"].tolist() == [[0, 0.5], [0, 0]]
    assert images[Draw(0, 5, True)]["marks"].tolist() == [[0, 0], [0, 0]]


# the loss


def test_the_loss_is_what_lies_outside() -> None:
    seen = torch.zeros(1, 4, 4)
    seen[:, 1, 2] = 30.0
    inside, elsewhere, small = torch.zeros(3, 1, 4, 4)
    inside[:, 1:3, 1:3] = 1
    elsewhere[:, 3, :] = 1
    small[:, 1, 2] = 0.1  # fills a tenth of its cell
    assert float(location_loss(seen, inside)) == pytest.approx(0, abs=1e-6)
    assert float(location_loss(seen, small)) == pytest.approx(0, abs=1e-6)
    assert float(location_loss(seen, elsewhere)) == pytest.approx(30 - np.log(4), abs=1e-4)
    even = location_loss(torch.zeros(1, 4, 4), inside)
    assert float(even) == pytest.approx(np.log(4))
    assert float(location_loss(seen, torch.zeros(1, 4, 4))) == 0  # marks that were moved out of the image


@pytest.mark.parametrize("fusion", ["gated", "attention"])
def test_the_evidence_is_the_heat_map(fusion) -> None:
    torch.manual_seed(0)
    network = FusionNetwork(build_encoder("efficientnet-lite0"), fusion=fusion).eval()
    features = torch.randn(3, 1280, 2, 3)
    labels = torch.tensor([1, 2, 1])
    nothing = torch.zeros(3, 10)
    maps = class_activation_maps(network, features, nothing, nothing.bool()).maps[range(3), labels]
    seen = evidence(network, features, labels)
    assert seen.requires_grad
    torch.testing.assert_close(seen.relu() / 6, maps, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("fusion", ["gated", "attention"])
def test_the_loss_moves_the_evidence_into_the_marks(fusion) -> None:
    torch.manual_seed(0)
    network = FusionNetwork(build_encoder("efficientnet-lite0"), fusion=fusion).eval()
    features, labels = torch.randn(4, 1280, 3, 3), torch.ones(4).long()
    marks = torch.zeros(4, 3, 3)
    marks[torch.arange(4), torch.arange(4) % 3, 1] = 1
    optimizer = torch.optim.Adam([p for n, p in network.named_parameters() if not n.startswith("encoder.")], 1e-3)
    losses = []
    for _ in range(30):
        loss = location_loss(evidence(network, features, labels), marks).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    hottest = evidence(network, features, labels).flatten(1).argmax(1)
    assert torch.equal(hottest, marks.flatten(1).argmax(1))


def test_parts_of_a_batch_add_up_to_the_batch() -> None:
    torch.manual_seed(0)
    network = FusionNetwork(build_encoder("efficientnet-lite0"), dropout_rate=0.0).eval()
    objective = TwoPassObjective(network, TrainingConfig(location_weight=0.7))
    generator = torch.Generator().manual_seed(1)
    features = torch.rand(4, 1280, 2, 2, generator=generator)
    allowed = torch.eye(5, dtype=torch.bool)[[0, 1, 1, 2]]
    none = torch.zeros(4, 10)
    targets = Targets(
        allowed, torch.ones(4, 5).bool(), torch.full((4,), torch.nan), torch.zeros(4, 5), torch.tensor([-1, 1, -1, 2])
    )
    marks = torch.zeros(4, 2, 2)
    marks[1, 0, 0] = marks[3, 1, 1] = 1
    denominators = objective.denominators(targets)
    whole = objective.of_features(features, none, none.bool(), targets, marks=marks)
    parts = [
        objective.of_features(
            features[rows], none[rows], none[rows].bool(), targets.of_rows(rows), None, denominators, marks[rows]
        )
        for rows in (torch.tensor([0, 1]), torch.tensor([2]), torch.tensor([3]))
    ]
    assert whole.location.item() > 0.1
    assert parts[1].location.item() == 0
    assert sum(part.total.item() for part in parts) == pytest.approx(whole.total.item(), rel=1e-5)
    assert sum(part.location.item() for part in parts) == pytest.approx(whole.location.item(), rel=1e-5)


# training


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data"), {"train": 16, "val": 8})


def run_of(manifest: Path, folder: Path, marks: MarkFiles, **training) -> TrainingRun:
    return TrainingRun(manifest, folder / "run", small_config(**training), "toy", folder / "cache", marks=marks)


def test_a_run_is_taught_and_says_so(manifest, tmp_path) -> None:
    run = run_of(manifest, tmp_path, MarkFiles(boxes=write_boxes(manifest)), location_weight=0.5, input_size=64)
    bundle = train_bundle(run, CPU)
    assert bundle.card.recipe["marked_studies"] == 8
    assert len(bundle.card.recipe["boxes_sha256"]) == 64
    with (run.output / "history.csv").open(encoding="utf-8", newline="") as stream:
        history = list(csv.DictReader(stream))
    assert all(float(row["train_location"]) > 0 for row in history)


def test_without_a_weight_marks_play_no_part(manifest, tmp_path) -> None:
    run = run_of(manifest, tmp_path, MarkFiles(boxes=write_boxes(manifest)), epochs=1)
    recipe = train_bundle(run, CPU).card.recipe
    assert recipe["marked_studies"] == 0
    assert "boxes_sha256" not in recipe


def test_a_weight_without_marks_is_refused_before_anything_is_written(manifest, tmp_path) -> None:
    with pytest.raises(UsageError, match="name --boxes or --lesions"):
        train_bundle(run_of(manifest, tmp_path, MarkFiles(), location_weight=0.5), CPU)
    nowhere = tmp_path / "boxes.csv"
    nowhere.write_text("image,label,reader,x,y,width,height\n", encoding="utf-8")
    with pytest.raises(DataError, match="no box and no mask is on a training image"):
        train_bundle(run_of(manifest, tmp_path, MarkFiles(boxes=nowhere), location_weight=0.5), CPU)
    assert not (tmp_path / "run").exists()


def test_volumes_cannot_be_taught(tmp_path) -> None:
    manifest = write_manifest(tmp_path / "data", {"train": 8, "val": 8}, dims=3, size=24)
    config = small_config(3, location_weight=0.5)
    run = TrainingRun(manifest, tmp_path / "run", config, "toy", tmp_path / "cache", marks=MarkFiles(tmp_path / "b"))
    with pytest.raises(ConfigError, match="2D networks only"):
        train_bundle(run, CPU)


def test_the_command_hands_the_files_on(manifest, tmp_path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(small_config(epochs=1, location_weight=0.5).model_dump_json(), encoding="utf-8")
    arguments = ["--data", manifest, "--config", config, "--boxes", write_boxes(manifest), "--device", "cpu"]
    result = CliRunner().invoke(train, [str(part) for part in [*arguments, "--output", tmp_path / "out"]])
    assert result.exit_code == 0, result.output
    header = (tmp_path / "out" / "history.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "train_location" in header


def test_real_marks_are_on_real_training_images(shared_data) -> None:
    studies = [s for s in read_manifest(shared_data / "studies.csv") if s.split == "train"]
    files = MarkFiles(shared_data / "boxes.csv", shared_data / "lesions.csv")
    marks = marks_on_input(regions_of(studies, files), studies, InputSpec(size=(320, 320)))
    assert len(marks) > 100
    assert {studies[i].label for i in marks} == {"pneumonia", "covid"}
    assert all(0 < float(mark.mean()) < 0.7 for mark in marks.values())
