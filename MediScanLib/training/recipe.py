"""From a manifest to a bundle: everything is checked first, then trained, calibrated and written."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__
from ..config import Config, InferenceConfig
from ..errors import ConfigError, DataError, UsageError
from ..network.bundle import Bundle, file_sha256, load_bundle, save_bundle
from ..network.card import CARD_SCHEMA_VERSION, FieldStatistics, InputSpec
from ..network.fusion import FusionNetwork
from ..progress import Progress, SilentProgress
from .allocator import keep_freed_memory
from .answering import Split, answer_split, evaluating, pooled_features, spread_evenly
from .augmentation import describe, kind_of
from .cases import case_rows
from .checkpoint import require_space
from .clinical import clinical_statistics
from .datasets import LABELS, Study, check_trainable, read_manifest
from .evaluation import tasks_in
from .finishing import CardText, input_spec, make_card, usual_peaks
from .history import draw_curves
from .loading import PreparedImages, StandardizedImages
from .location import marks_on_input
from .novelty import REFERENCES, learn_novelty
from .processes import Processes
from .regions import NO_MARKS, MarkFiles, regions_of
from .trainer import LAST, EpochListener, Trainer

CURVES = "curves.png"
STANDARDIZED_FROM = 512
"""Training studies by whose features the network's are standardized."""

DRAWS = InferenceConfig().dropout_samples
"""Answers with dropout on val, as many as a prediction draws: their scatter depends on it."""


@dataclass(frozen=True)
class TrainingRun:
    """What to train and where to put it.

    Attributes:
        manifest: Manifest of studies.
        output: Folder of the run: checkpoints, history, curves, and the bundle below its name.
        config: All settings.
        name: Name of the bundle.
        cache: Folder of prepared images.
        resume: Checkpoint to go on from; None for a new run.
        text: What the card says in words; None for what can be told from the data.
        marks: Readers' boxes and masks to teach the heat maps with, where `location_weight` asks for it.
    """

    manifest: Path
    output: Path
    config: Config
    name: str
    cache: Path
    resume: Path | None = None
    text: CardText | None = None
    marks: MarkFiles = NO_MARKS


def train_bundle(
    run: TrainingRun,
    device: torch.device,
    *,
    processes: Processes | None = None,
    progress: Progress | None = None,
    on_epoch: EpochListener = lambda _: None,
) -> Bundle | None:
    """Train, and write the bundle of the best epoch.

    Args:
        run: What to train.
        device: Where.
        processes: This process among those that train together; all must be given the same run.
        progress: Hears of every step, and may stop the run.
        on_epoch: Hears the figures of every epoch.

    Returns:
        The bundle; None in all processes but the first.

    Raises:
        ConfigError: The settings do not fit each other or the processes.
        DataError: The manifest or an image is not acceptable; the message names the row.
        CheckpointError: `run.resume` is damaged, or belongs to another run.
        UsageError: The folder holds another run already.
        WriteError: A disk is full; what was written before is untouched.
        CancelledError: `progress` asked to stop.
    """
    processes, progress = processes or Processes(), progress or SilentProgress()
    settings = run.config.training
    if run.resume is None and (run.output / LAST).exists():
        raise UsageError(
            f"{run.output}: holds a training run already. Go on with it by --resume {run.output / LAST}, or name "
            "another folder with --output."
        )
    studies = _studies_by_split(run)
    keep_freed_memory()
    torch.manual_seed(settings.seed)
    network = FusionNetwork.build(run.config.model)
    network.to(memory_format=network.encoder.memory_format)  # type: ignore[call-overload]
    network.to(device)
    spec = input_spec(studies["train"], network, settings.input_size)
    statistics = clinical_statistics(studies["train"])
    images = {split: PreparedImages(members, spec, run.cache) for split, members in studies.items()}
    marks = {"train": _marks(run, studies["train"], spec)}
    splits = {
        split: Split.of(members, images[split], statistics, marks.get(split)) for split, members in studies.items()
    }
    frozen = settings.batch_norm == "frozen" or (settings.batch_norm == "auto" and run.config.model.weights != "none")
    trainer = Trainer(
        network,
        splits["train"],
        splits["val"],
        spec,
        settings,
        run.output,
        _identity(run, spec),
        device,
        norm_frozen=frozen,
        processes=processes,
        progress=progress,
        on_epoch=on_epoch,
    )
    if run.resume is not None:
        trainer.resume(run.resume)
    if processes.local_rank == 0:
        _check_space(run, network, list(images.values()), spec)
        for split, prepared in images.items():
            prepared.prepare(progress, f"images of {split}")
    processes.wait()
    if run.resume is None and settings.standardize_features:
        with evaluating(network):
            network.standardize(
                pooled_features(network.encoder, splits["train"], spec, device, progress, most=STANDARDIZED_FROM)
            )
    with _determinism(settings.deterministic):
        best = trainer.run()
    return _finish(run, best, trainer, splits, spec, statistics, device, progress) if processes.is_first else None


def finished_bundle(run: TrainingRun) -> Bundle | None:
    """The bundle that an earlier run of the same settings on the same manifest left; None where there is none.

    Raises:
        BundleError: It is damaged.
        UsageError: It was trained in another way, so that its figures would be taken for those of this one.
    """
    folder = run.output / run.name
    if not folder.is_dir():
        return None
    bundle = load_bundle(folder)
    if bundle.card.schema_version != CARD_SCHEMA_VERSION:
        return None  # the weights are as they were, but more is to be said of them: the run goes on with its last step
    recipe, made = bundle.card.recipe, bundle.card.network.model_dump(exclude={"weights"})
    wanted = run.config.training.model_dump(mode="json", exclude={"workers"})
    settings = recipe.get("settings")
    found = {key: value for key, value in settings.items() if key != "workers"} if isinstance(settings, dict) else {}
    differing = [
        *(f"training.{key}" for key in wanted if found.get(key) != wanted[key]),
        *(key for key, value in run.config.model.model_dump(exclude={"weights"}).items() if made[key] != value),
        *(f"file of the {name}" for name, sha256 in _files(run).items() if recipe.get(f"{name}_sha256") != sha256),
    ]
    if differing:
        raise UsageError(f"{folder}: was trained with another {', '.join(differing)}. Name another folder.")
    return bundle


def _studies_by_split(run: TrainingRun) -> dict[str, list[Study]]:
    config = run.config
    if config.model.num_classes != len(LABELS):
        raise DataError(f"model.num_classes is {config.model.num_classes}; a manifest knows {len(LABELS)} findings.")
    studies = read_manifest(run.manifest)
    check_trainable(studies, run.manifest)
    by_split = {split: [s for s in studies if s.split == split] for split in ("train", "val")}
    if config.training.monitor == "within_source_auc" and not tasks_in(by_split["val"]):
        raise DataError(
            f"{run.manifest}: no source has two different findings in split val, so that training.monitor "
            "within_source_auc has no value. Add such studies to val, or set training.monitor: loss."
        )
    return by_split


@contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    """Only algorithms that repeat themselves, where wanted; torch as it was afterwards."""
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to repeat itself
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


def _identity(run: TrainingRun, spec: InputSpec) -> dict[str, Any]:
    """What must be the same for a run to go on; how many processes load images is not part of it."""
    return {
        "model": run.config.model.model_dump(mode="json"),
        "training": run.config.training.model_dump(mode="json", exclude={"workers"}),
        "input": spec.model_dump(mode="json"),
        **{name: {"sha256": sha256} for name, sha256 in _files(run).items()},
    }


def _files(run: TrainingRun) -> dict[str, str]:
    """SHA-256 of what is learned from, by what it is."""
    files = {"manifest": run.manifest}
    if run.config.training.location_weight:
        files |= run.marks.there
    return {name: file_sha256(path) for name, path in files.items()}


def _marks(run: TrainingRun, train: Sequence[Study], spec: InputSpec) -> dict[int, Tensor]:
    if not run.config.training.location_weight:
        return {}
    if len(spec.size) != 2:
        raise ConfigError("training.location_weight: boxes and masks teach 2D networks only. Set it to 0.")
    if not run.marks.there:
        raise UsageError("training.location_weight is set, but there are no marks: name --boxes or --lesions.")
    marks = marks_on_input(regions_of(train, run.marks), train, spec)
    if not marks:
        raise DataError("training.location_weight is set, but no box and no mask is on a training image. Set it to 0.")
    return marks


def _check_space(run: TrainingRun, network: FusionNetwork, images: Sequence[PreparedImages], spec: InputSpec) -> None:
    missing = sum(prepared.missing for prepared in images)
    require_space(run.cache, missing * (2 * math.prod(spec.size) + 4096), "the prepared images")
    weights = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    # weights, two moments and an average, twice while one file replaces the other; the best weights likewise
    require_space(run.output, 10 * weights, "the checkpoints")


def _finish(
    run: TrainingRun,
    network: FusionNetwork,
    trainer: Trainer,
    splits: dict[str, Split],
    spec: InputSpec,
    statistics: dict[str, FieldStatistics],
    device: torch.device,
    progress: Progress,
) -> Bundle:
    settings = run.config.training
    draw_curves(run.output / CURVES, trainer.history, settings.monitor, trainer.best_epoch)
    network.eval()
    val = splits["val"]
    seen = StandardizedImages(val.images, spec)
    scales = usual_peaks(network, (seen[i]["image"] for i in range(len(seen))), len(seen), device, progress)
    limit = learn_novelty(network, splits["train"], val, spec, device, progress)
    weights = run.config.model.weights
    model = run.config.model.model_copy(
        update={"weights": weights if weights in ("imagenet", "none") else Path(weights).name}
    )
    train = splits["train"].studies
    card = make_card(
        run.text or _plain_text(run, train),
        model=model,
        spec=spec,
        clinical=statistics,
        train_studies=train,
        outputs={"val": answer_split(network, val, spec, device, workers=settings.workers, draws=DRAWS)},
        heat_map_scales=scales,
        novelty=limit,
        recipe={
            "settings": settings.model_dump(mode="json"),
            "augmentation": describe({kind_of(s.modality, s.body_part) for s in train}, settings.augmentation),
            "epochs": len(trainer.history),
            "best_epoch": trainer.best_epoch,
            **{f"{name}_sha256": sha256 for name, sha256 in _files(run).items()},
            "marked_studies": len(splits["train"].marks),
            "device": device.type,
            "versions": {name: version(name) for name in ("torch", "monai", "numpy")},
        },
    )
    told = case_rows([train[i] for i in spread_evenly(len(train), REFERENCES)])
    return save_bundle(network.cpu(), card, run.output, told)


def _plain_text(run: TrainingRun, train: Sequence[Study]) -> CardText:
    return CardText(
        name=run.name,
        version=__version__,
        title=f"Five findings, trained on {run.manifest.name}",
        description=(
            f"Trained by `mediscan train` on {len(train)} studies of "
            f"{', '.join(sorted({study.source for study in train}))}. For research, not for any clinical use."
        ),
        weights_licence="Follows from the licences of the training data, listed under `data`; not stated further.",
        cautions=("The figures are of the split that chose the epoch and the thresholds: they are too good.",),
    )
