"""Training as a whole: what is learned, what is kept, what is refused before it starts, and what is never lost."""

import csv
import itertools
import json
import math
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from click.testing import CliRunner
from small_manifest import small_config, write_manifest

from MediScanLib.commands.train import train
from MediScanLib.config import Config, ModelConfig
from MediScanLib.errors import (
    CancelledError,
    CheckpointError,
    ConfigError,
    DataError,
    MediScanError,
    UsageError,
    WriteError,
)
from MediScanLib.network.bundle import load_bundle
from MediScanLib.network.card import InputSpec
from MediScanLib.network.encoders import Encoder
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.preprocessing import prepare_slices
from MediScanLib.progress import CallbackProgress, SilentProgress
from MediScanLib.study.reading import read_image
from MediScanLib.training import loading
from MediScanLib.training.checkpoint import load_checkpoint, require_space, save_checkpoint
from MediScanLib.training.datasets import read_manifest
from MediScanLib.training.loading import PreparedImages, StandardizedImages
from MediScanLib.training.optimization import make_optimizer, rate_at
from MediScanLib.training.recipe import TrainingRun, train_bundle
from MediScanLib.training.sampling import BalancedBatches, balanced_weights
from MediScanLib.training.trainer import Trainer, half_precision
from MediScanLib.writing import atomic_write

CPU = torch.device("cpu")
LINES = ["image", "label", "split"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data"), {"train": 16, "val": 8})


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run_of(manifest: Path, output: Path, cache: Path, config: Config | None = None, **changes) -> TrainingRun:
    return TrainingRun(manifest, output, config or small_config(), "toy", cache, **changes)


def changed(manifest: Path, folder: Path, change) -> Path:
    """A copy of the data whose rows went through `change`."""
    shutil.copytree(manifest.parent, folder)
    path = folder / manifest.name
    with path.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = [row for row in map(change, reader) if row is not None]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows(rows)
    return path


# what is drawn and how fast is learned


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    rates = [rate_at(step, 4, 20) for step in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[12] == pytest.approx(0.5)
    assert rates[20] == pytest.approx(0)
    assert all(earlier >= later for earlier, later in itertools.pairwise(rates[4:]))
    assert rate_at(0, 0, 1) == 1


def test_the_encoder_learns_slower_and_norms_are_not_decayed() -> None:
    network = FusionNetwork.build(ModelConfig(weights="none"))
    settings = small_config(encoder_rate=0.1, learning_rate=0.01, weight_decay=0.2, head_weight_decay=0.2).training
    optimizer = make_optimizer(network, settings)
    by_tensor = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(by_tensor) == len(list(network.parameters()))
    for name, parameter in network.named_parameters():
        group = by_tensor[id(parameter)]
        assert group["lr"] == pytest.approx(0.001 if name.startswith("encoder.") else 0.01)
        assert group["weight_decay"] == (0.2 if parameter.ndim > 1 else 0)


def test_batches_are_balanced_over_labels_and_sources(manifest) -> None:
    studies = [s for s in read_manifest(manifest) if s.split == "train"]
    lopsided = [s for s in studies if s.label == "normal"] * 5 + [s for s in studies if s.label != "normal"]
    weights = balanced_weights(lopsided)
    plan = BalancedBatches(weights, 8, seed=3)
    drawn = [lopsided[draw.study].label for epoch in range(1, 20) for batch in plan.plan(epoch) for draw in batch]
    assert 0.4 < drawn.count("normal") / len(drawn) < 0.6


def test_batches_are_the_same_however_they_are_shared_out() -> None:
    weights = torch.ones(37)
    alone = BalancedBatches(weights, 12, seed=5, image_dropout=0.3)
    assert len(alone) == alone.steps == 3
    alone.epoch = 4
    whole = [sorted(batch) for batch in alone]
    shares = [BalancedBatches(weights, 12, seed=5, image_dropout=0.3, parts=3, rank=r, processes=2) for r in (0, 1)]
    together: list[list] = [[] for _ in whole]
    for share in shares:
        share.epoch = 4
        for number, part in enumerate(share):
            assert len(part) == 2
            together[number // 3] += part
    assert [sorted(batch) for batch in together] == whole
    assert alone.plan(4) != alone.plan(5)
    with pytest.raises(ConfigError, match=r"12.*2 processes with 5 parts"):
        BalancedBatches(weights, 12, parts=5, processes=2)


# images


def test_prepared_images_are_what_the_predictor_sees(manifest, tmp_path, monkeypatch) -> None:
    studies = read_manifest(manifest)[:3]
    spec = InputSpec(size=(32, 32), mean=0.4, std=0.3)
    seen = StandardizedImages(PreparedImages(studies, spec, tmp_path), spec)
    expected = [prepare_slices(read_image(study.image), spec, (0,)).tensor[0] for study in studies]
    for position, image in enumerate(expected):
        torch.testing.assert_close(seen[position]["image"], image, rtol=0, atol=2e-3)  # float16 on disk
    monkeypatch.setattr(loading, "read_image", lambda path: pytest.fail(f"{path} is read again"))
    again = PreparedImages(studies, spec, tmp_path)
    assert again.missing == 0
    assert torch.equal(StandardizedImages(again, spec)[1]["image"], seen[1]["image"])


def test_a_changed_image_or_a_damaged_file_is_prepared_again(manifest, tmp_path) -> None:
    folder = tmp_path / "data"
    copy = changed(manifest, folder, lambda row: row)
    studies, spec, cache = read_manifest(copy)[:2], InputSpec(size=(32, 32)), tmp_path / "cache"
    before = PreparedImages(studies, spec, cache)[0]
    for file in cache.iterdir():
        file.write_bytes(file.read_bytes()[:-200])  # a kill while the file was copied
    assert torch.equal(PreparedImages(studies, spec, cache)[0], before)
    shutil.copy(studies[1].image, studies[0].image)
    assert not torch.equal(PreparedImages(studies, spec, cache)[0], before)
    assert PreparedImages(studies, InputSpec(size=(48, 48)), cache).missing == 2


# a whole run


@pytest.fixture(scope="module")
def finished(manifest, cache, tmp_path_factory):
    output = tmp_path_factory.mktemp("run") / "out"
    config = small_config(epochs=4, learning_rate=0.003, average_decay=0.5, accumulation_steps=2)
    rows: list = []
    bundle = train_bundle(run_of(manifest, output, cache, config), CPU, on_epoch=rows.append)
    return output, bundle, rows


def test_a_run_leaves_a_bundle_a_history_and_curves(finished, output_folder) -> None:
    output, bundle, rows = finished
    with (output / "history.csv").open(encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    assert [float(row["epoch"]) for row in written] == [1, 2, 3, 4]
    assert [float(row["val_loss"]) for row in written] == pytest.approx([row["val_loss"] for row in rows], rel=1e-5)
    assert all(math.isfinite(float(value)) for row in written for value in row.values())
    assert written[0]["learning_rate"] < written[1]["learning_rate"] > written[3]["learning_rate"]
    assert (output / "curves.png").read_bytes().startswith(b"\x89PNG")
    shutil.copy(output / "curves.png", output_folder / "training-curves.png")
    assert not [file for file in output.iterdir() if file.name.startswith(".")]
    best = max(rows, key=lambda row: (row["val_within_source_auc"], -row["epoch"]))
    assert bundle.card.recipe["best_epoch"] == best["epoch"]


def test_the_card_tells_the_recipe(finished) -> None:
    _, bundle, _ = finished
    card = json.loads((bundle.folder / "card.json").read_text(encoding="utf-8"))
    assert card["recipe"]["settings"]["average_decay"] == 0.5
    assert card["recipe"]["augmentation"]["ranges"]["radiograph"]["mirror"] is False
    assert card["input"]["size"] == [32, 32]
    assert card["severity"]["findings"] == ["pneumonia", "covid"]
    assert {source["name"]: source["studies"] for source in card["data"]} == {"left": 8, "right": 8}
    assert set(card["recipe"]["versions"]) == {"torch", "monai", "numpy"}


def test_the_bundle_holds_the_weights_of_the_best_epoch(finished) -> None:
    output, bundle, _ = finished
    best = load_checkpoint(output / "best.pt")
    assert best["epoch"] == bundle.card.recipe["best_epoch"]
    network = load_bundle(bundle.folder).load_network()
    assert network.novelty is not None  # learned after training
    network.novelty = None
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, best["network"][name]), name


def test_half_precision_is_used_where_the_device_is_quicker_in_it(manifest, cache, tmp_path) -> None:
    in_training, forward = set(), Encoder.forward

    def spy(self, image):
        features = forward(self, image)
        if torch.is_grad_enabled():
            in_training.add(features.dtype)
        return features

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Encoder, "forward", spy)
        config = small_config(epochs=1, frozen_epochs=0, mixed_precision=True)
        bundle = train_bundle(run_of(manifest, tmp_path / "out", cache, config), CPU)
    assert in_training == {half_precision(CPU) or torch.float32}
    assert all(bool(torch.isfinite(t).all()) for t in bundle.load_network().state_dict().values())


def test_the_predictor_gives_the_answers_that_chose_the_epoch(finished, manifest) -> None:
    _, bundle, rows = finished
    predictor = Predictor.load(str(bundle.folder), "cpu")
    val = [study for study in read_manifest(manifest) if study.split == "val"]
    scores = [predictor(read_image(s.image), s.record).probabilities["pneumonia"] for s in val]
    areas = []
    for source in ("left", "right"):
        ill = [p for p, s in zip(scores, val, strict=True) if s.source == source and s.label == "pneumonia"]
        well = [p for p, s in zip(scores, val, strict=True) if s.source == source and s.label == "normal"]
        areas.append(np.mean([[(a > b) + 0.5 * (a == b) for b in well] for a in ill]))
    assert np.mean(areas) == pytest.approx(max(row["val_within_source_auc"] for row in rows), abs=0.13)


def test_it_learns(tmp_path, cache) -> None:
    manifest = write_manifest(tmp_path / "data", {"train": 32, "val": 16}, size=64, seed=4)
    config = small_config(epochs=4, learning_rate=0.003, batch_size=8, input_size=64)
    config = config.model_copy(update={"model": config.model.model_copy(update={"weights": "imagenet"})})
    rows: list = []
    train_bundle(run_of(manifest, tmp_path / "out", cache, config), CPU, on_epoch=rows.append)
    assert max(row["val_within_source_auc"] for row in rows) > 0.9
    assert rows[-1]["train_image"] < 0.7 * rows[0]["train_image"]


def test_a_frozen_encoder_and_frozen_norms_stay_as_they_were(manifest, cache, tmp_path, monkeypatch) -> None:
    states = []
    save = Trainer._save
    monkeypatch.setattr(
        Trainer,
        "_save",
        lambda self, path: (
            save(self, path),
            states.append({k: v.clone() for k, v in self.network.state_dict().items()}),
        ),
    )
    config = small_config(batch_norm="frozen")  # one frozen epoch, then one that is not
    train_bundle(run_of(manifest, tmp_path, cache, config), CPU)
    start, frozen, free = states
    encoder = [name for name in start if name.startswith("encoder.")]
    assert all(torch.equal(start[name], frozen[name]) for name in encoder)
    assert not torch.equal(start["disease.weight"], frozen["disease.weight"])
    assert not torch.equal(frozen["encoder.layers.stem.conv.weight"], free["encoder.layers.stem.conv.weight"])
    running = [name for name in encoder if "running" in name]
    assert running
    assert all(torch.equal(start[name], free[name]) for name in running)


def test_parts_of_a_batch_give_the_weights_of_the_whole(manifest, cache, tmp_path) -> None:
    gradients = []
    for parts in (1, 2):
        config = small_config(epochs=1, frozen_epochs=0, batch_norm="frozen", accumulation_steps=parts, batch_size=16)
        config = config.model_copy(update={"model": config.model.model_copy(update={"dropout_rate": 0.0})})
        step = Trainer._step
        taken: list = []

        def keep(self, step=step, taken=taken) -> None:
            taken.append({name: p.grad.clone() for name, p in self.network.named_parameters()})
            step(self)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Trainer, "_step", keep)
            train_bundle(run_of(manifest, tmp_path / str(parts), cache, config), CPU)
        assert len(taken) == 1
        gradients.append(taken[0])
    for name, gradient in gradients[0].items():
        # a last digit may carry one activation over the corner of its ReLU; a wrong share would change half of it
        assert float((gradients[1][name] - gradient).norm()) <= 0.02 * float(gradient.norm()) + 1e-6, name


def test_it_stops_when_nothing_gets_better(manifest, cache, tmp_path, monkeypatch) -> None:
    figures = iter([0.6, 0.8, 0.7, 0.8, 0.9, 0.9])
    figure = lambda self: {"loss": 1.0, "within_source_auc": next(figures), "image_only_within_source_auc": 0.5}  # noqa: E731
    monkeypatch.setattr(Trainer, "_validate", figure)
    rows: list = []
    config = small_config(epochs=6, patience=2, frozen_epochs=6)
    bundle = train_bundle(run_of(manifest, tmp_path / "out", cache, config), CPU, on_epoch=rows.append)
    assert [row["val_within_source_auc"] for row in rows] == [0.6, 0.8, 0.7, 0.8]
    assert bundle.card.recipe["best_epoch"] == 2
    # a stopped run that is resumed is finished, not trained on
    again = run_of(manifest, tmp_path / "out", cache, config, resume=tmp_path / "out" / "last.pt")
    assert train_bundle(again, CPU).sha256 == bundle.sha256


def test_the_last_epoch_may_be_kept_whatever_val_says(manifest, cache, tmp_path, monkeypatch) -> None:
    figures = iter([0.9, 0.5, 0.6])
    figure = lambda self: {"loss": 1.0, "within_source_auc": next(figures), "image_only_within_source_auc": 0.5}  # noqa: E731
    monkeypatch.setattr(Trainer, "_validate", figure)
    config = small_config(epochs=3, patience=1, frozen_epochs=3, monitor="last")
    bundle = train_bundle(run_of(manifest, tmp_path / "out", cache, config), CPU)
    assert bundle.card.recipe["best_epoch"] == bundle.card.recipe["epochs"] == 3
    assert (tmp_path / "out" / "curves.png").stat().st_size > 1000


def test_standardized_features_start_even_and_are_part_of_the_bundle(manifest, cache, tmp_path) -> None:
    config = small_config(epochs=1, standardize_features=True)
    bundle = train_bundle(run_of(manifest, tmp_path / "out", cache, config), CPU)
    network = bundle.load_network()
    assert network.feature_mean.abs().sum() > 0
    assert (network.feature_std > 0).all()
    plain = train_bundle(run_of(manifest, tmp_path / "plain", cache, small_config(epochs=1)), CPU).load_network()
    assert not plain.feature_mean.any()


def test_attention_fusion_is_trained_too(manifest, cache, tmp_path) -> None:
    config = small_config(epochs=1, frozen_epochs=0, monitor="loss")
    config = config.model_copy(update={"model": config.model.model_copy(update={"fusion": "attention"})})
    bundle = train_bundle(run_of(manifest, tmp_path, cache, config), CPU)
    assert bundle.card.network.fusion == "attention"


# what is refused


def with_label(label):
    return lambda row: row | {"label": label}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda row: row | ({"image": "gone.png"} if row["image"] == "train-3.png" else {}), r"row 5.*gone\.png"),
        (lambda row: row | ({"label": "gout"} if row["image"] == "train-3.png" else {}), r"row 5.*'gout' is unknown"),
        (with_label("normal"), "every training study is labelled normal"),
        (lambda row: row if row["split"] == "train" else None, "no study is in split val"),
        (lambda row: row if row["split"] == "val" else None, "no study is in split train"),
        (lambda row: row | ({"label": "normal"} if row["split"] == "val" else {}), "monitor: loss"),
        (lambda row: row | {"patient": "same"}, "patient same of"),
    ],
    ids=["missing file", "unknown label", "one class", "no val", "no train", "val cannot choose", "leak"],
)
def test_a_bad_manifest_is_refused_before_anything_is_written(manifest, tmp_path, change, words) -> None:
    bad = changed(manifest, tmp_path / "data", change)
    with pytest.raises(DataError, match=words):
        train_bundle(run_of(bad, tmp_path / "out", tmp_path / "cache"), CPU)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [("nan", "Row 6"), ("truncated", "Row 6"), ("volume", r"row 6.*3 slices.*spatial_dims: 3")],
)
def test_an_image_that_cannot_be_used_is_found_before_training(
    manifest, tmp_path, content, words, monkeypatch
) -> None:
    bad = changed(manifest, tmp_path / "data", lambda row: row)
    image = tmp_path / "data" / "train-4.png"
    if content == "truncated":
        image.write_bytes(image.read_bytes()[:300])
    else:
        shape, value = ((1, 40, 40), np.nan) if content == "nan" else ((3, 40, 40), 1.0)
        volume = SimpleITK.GetImageFromArray(np.full(shape, value, dtype=np.float32))
        SimpleITK.WriteImage(volume, str(tmp_path / "image.nii"))
        (tmp_path / "image.nii").replace(image)  # formats are known by content
    monkeypatch.setattr(Trainer, "run", lambda self: pytest.fail("training started"))
    with pytest.raises(DataError, match=words):
        train_bundle(run_of(bad, tmp_path / "out", tmp_path / "cache"), CPU)


def test_a_run_is_not_written_over_another(finished, manifest, cache) -> None:
    output, _, _ = finished
    with pytest.raises(UsageError, match=r"--resume .*last\.pt"):
        train_bundle(run_of(manifest, output, cache), CPU)


def test_a_checkpoint_of_another_run_is_refused(finished, manifest, cache, tmp_path) -> None:
    output, _, _ = finished
    before = (output / "last.pt").read_bytes()
    config = small_config(epochs=4, learning_rate=0.003, average_decay=0.5, accumulation_steps=2)
    other = config.model_copy(update={"model": config.model.model_copy(update={"fusion": "attention"})})
    with pytest.raises(CheckpointError, match=r"model\.fusion is 'gated' there and 'attention' here"):
        train_bundle(run_of(manifest, output, cache, other, resume=output / "last.pt"), CPU)
    slower = small_config(epochs=4, learning_rate=0.001, average_decay=0.5, accumulation_steps=2)
    with pytest.raises(CheckpointError, match=r"training\.learning_rate is 0\.003 there"):
        train_bundle(run_of(manifest, output, cache, slower, resume=output / "last.pt"), CPU)
    elsewhere = changed(manifest, tmp_path / "data", lambda row: row | {"age_years": "50"})
    with pytest.raises(CheckpointError, match=r"manifest\.sha256"):
        train_bundle(run_of(elsewhere, output, cache, config, resume=output / "last.pt"), CPU)
    assert (output / "last.pt").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nonsense", None])
def test_a_file_that_is_no_checkpoint_is_named(manifest, cache, tmp_path, content) -> None:
    path = tmp_path / "mine.pt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"mine\.pt"):
        train_bundle(run_of(manifest, tmp_path / "out", cache, resume=path), CPU)


def test_nothing_in_a_checkpoint_is_executed(tmp_path) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    torch.save({"format": 1, "trap": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(
    manifest, cache, tmp_path, monkeypatch
) -> None:
    step = Trainer._step

    def poisoned(self) -> None:
        step(self)
        if self._engine.state.epoch == 2:
            with torch.no_grad():
                self.network.disease.bias.fill_(torch.nan)

    monkeypatch.setattr(Trainer, "_step", poisoned)
    with pytest.raises(DataError, match=r"epoch 2 is no number.*learning_rate"):
        train_bundle(run_of(manifest, tmp_path / "out", cache), CPU)
    state = load_checkpoint(tmp_path / "out" / "last.pt")
    assert len(state["history"]) == 1
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state["network"].values())


def test_cancelling_keeps_the_last_whole_epoch(manifest, cache, tmp_path) -> None:
    reports: list = []
    progress = CallbackProgress(lambda *report: reports.append(report), lambda: ("epoch 2 of 2", 2, 4) in reports)
    with pytest.raises(CancelledError, match=r"epoch 2.*--resume"):
        train_bundle(run_of(manifest, tmp_path / "out", cache), CPU, progress=progress)
    assert len(load_checkpoint(tmp_path / "out" / "last.pt")["history"]) == 1


# a full disk


@pytest.fixture
def small_files():
    """Files cannot grow beyond a limit, as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, small_files) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.zeros(100)})
    before = path.read_bytes()
    small_files(100_000)
    with pytest.raises(WriteError, match=r"last\.pt: cannot be written.*untouched"):
        save_checkpoint(path, {"weights": torch.zeros(100_000)})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_noticed_before_the_first_epoch(manifest, cache, tmp_path, small_files) -> None:
    small_files(1_000_000)  # images fit, checkpoints do not
    started: list = []
    with pytest.raises(WriteError, match=r"last\.pt"):
        train_bundle(run_of(manifest, tmp_path / "out", cache), CPU, on_epoch=started.append)
    assert not started
    assert not list((tmp_path / "out").iterdir())


def test_images_that_cannot_be_stored_name_the_row(manifest, tmp_path, small_files) -> None:
    small_files(1_000)
    images = PreparedImages(read_manifest(manifest)[:2], InputSpec(size=(32, 32)), tmp_path / "cache")
    with pytest.raises(WriteError, match=r"cache: the prepared image of row 2 cannot be stored"):
        images.prepare(SilentProgress(), "images")


def test_room_is_asked_for_beforehand(tmp_path) -> None:
    require_space(tmp_path / "new" / "folder", 1, "the checkpoints")
    with pytest.raises(WriteError, match=r"the checkpoints need about .* MB, .* MB are free"):
        require_space(tmp_path / "new" / "folder", 10**18, "the checkpoints")


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path) -> None:
    with pytest.raises(WriteError, match="no space left"), atomic_write(tmp_path / "file") as stream:
        stream.write(b"half")
        raise OSError("no space left")
    assert not list(tmp_path.iterdir())


# the command


def test_the_command_trains_and_overrides_the_configuration(manifest, tmp_path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "model: {weights: none}\ntraining: {input_size: 32, batch_size: 8, frozen_epochs: 9, workers: 0}\n",
        encoding="utf-8",
    )
    options = ["--data", str(manifest), "--output", str(tmp_path / "out"), "--config", str(config), "--device", "cpu"]
    changes = ["--epochs", "1", "--batch-size", "4", "--lr", "0.002", "--name", "mine"]
    result = CliRunner().invoke(train, [*options, *changes], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "epoch 1: train" in result.output
    settings = load_bundle(tmp_path / "out" / "mine").card.recipe["settings"]
    assert (settings["epochs"], settings["batch_size"], settings["learning_rate"]) == (1, 4, 0.002)
    assert settings["warmup_epochs"] == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--epochs", "0"], "training.epochs is 0"),
        (["--lr", "-1"], "training.learning_rate"),
        (["--gpus", "64"], "CUDA devices here"),
        (["--distributed"], "torchrun"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_the_command_refuses_what_cannot_be(manifest, tmp_path, options, words) -> None:
    result = CliRunner().invoke(train, ["--data", str(manifest), "--output", str(tmp_path / "out"), *options])
    assert isinstance(result.exception, MediScanError)
    assert words in str(result.exception)
    assert not (tmp_path / "out").exists()
