"""What a network says about a split, with and without clinical values, and one figure for how good that is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.utils.data import DataLoader

from ..network.card import FieldStatistics, InputSpec
from ..network.fusion import FusionNetwork, HeadOutput, average_pool
from ..progress import Progress, tracked
from .clinical import standardized_records
from .datasets import LABELS, Study
from .evaluation import tasks_in
from .loading import PreparedImages, StandardizedImages
from .objective import Targets, TwoPassObjective
from .presence import Mask, Values
from .processes import Processes


@dataclass(frozen=True)
class Split:
    """Studies of one split with all that training needs of them.

    Attributes:
        studies: Studies.
        images: Their prepared images.
        values: (study, field), standardized.
        known: (study, field).
        targets: Targets.
        marks: What readers marked, by position of the study; see `marks_on_input`.
    """

    studies: Sequence[Study]
    images: PreparedImages
    values: Values
    known: Mask
    targets: Targets
    marks: Mapping[int, Tensor]

    @classmethod
    def of(
        cls,
        studies: Sequence[Study],
        images: PreparedImages,
        statistics: dict[str, FieldStatistics],
        marks: Mapping[int, Tensor] | None = None,
    ) -> Split:
        """Put together from studies, their images, the statistics of the training split, and readers' marks."""
        values, known = standardized_records(studies, statistics)
        marks = marks or {}
        return cls(studies, images, values, known, Targets.of(studies, marks), marks)


@dataclass(frozen=True)
class SplitOutput:
    """What the heads say of every study of a split, on the CPU.

    Attributes:
        studies: Studies.
        fused: With image and clinical values.
        image_only: With all clinical values hidden.
        drawn: Logits of `fused` with dropout, (study, draw, label); without draws where none were asked for.
    """

    studies: Sequence[Study]
    fused: HeadOutput
    image_only: HeadOutput
    drawn: Tensor


@dataclass
class _Collected:
    rows: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)  # (study, 2 * (label + 1) + draw * label)


def answer_split(
    network: FusionNetwork,
    split: Split,
    spec: InputSpec,
    device: torch.device,
    *,
    batch_size: int = 32,
    workers: int = 0,
    processes: Processes | None = None,
    draws: int = 0,
) -> SplitOutput:
    """Ask a network about every study of a split; several processes share the work and all get all output.

    Args:
        network: Network.
        split: Studies.
        spec: Input of the network.
        device: Where the network is.
        batch_size: Studies at once.
        workers: Processes that load images.
        processes: Those that share the work.
        draws: Answers with dropout for each study.
    """
    processes = processes or Processes()
    mine = range(processes.rank, len(split.studies), processes.count)
    loader = DataLoader(StandardizedImages(split.images, spec, mine), batch_size, num_workers=workers)
    values, known = torch.from_numpy(split.values), torch.from_numpy(split.known)
    collected = _Collected()

    def update(_: Engine, batch: dict[str, Any]) -> None:
        rows: Tensor = batch["index"]
        with torch.inference_mode():
            features = network.features(batch["image"].to(device))
            shown = values[rows].to(device), known[rows].to(device)
            fused = network.head(features, *shown)
            alone = network.head(features, *(torch.zeros_like(part) for part in shown))
            parts = [part.float() for out in (fused, alone) for part in (out.logits, out.severity[:, None])]
            if draws:
                parts.append(network.sampled(features, *shown, draws).logits.transpose(0, 1).flatten(1).float())
        collected.rows.append(rows)
        collected.outputs.append(torch.cat(parts, dim=1).cpu())

    if len(mine):
        with evaluating(network):
            quiet(SupervisedEvaluator(device, loader, network, iteration_update=update, decollate=False)).run()
    heads = 2 * (len(LABELS) + 1)
    empty = torch.zeros(0, heads + draws * len(LABELS))
    gathered = processes.gather(
        (torch.cat([torch.zeros(0).long(), *collected.rows]), torch.cat([empty, *collected.outputs]))
    )
    order = torch.cat([rows for rows, _ in gathered]).argsort()
    outputs = torch.cat([part for _, part in gathered])[order]
    fused, alone = outputs[:, :heads].chunk(2, dim=1)
    drawn = outputs[:, heads:].reshape(len(outputs), draws, len(LABELS))
    said = [HeadOutput(part[:, :-1], part[:, -1]) for part in (fused, alone)]
    return SplitOutput(split.studies, said[0], said[1], drawn)


@torch.inference_mode()
def pooled_features(
    encode: Callable[[Tensor], Tensor],
    split: Split,
    spec: InputSpec,
    device: torch.device,
    progress: Progress,
    *,
    most: int,
) -> Tensor:
    """Average over the cells of what `encode` makes of images: (image, C) on the CPU.

    Args:
        encode: From images (B, 1, *spatial) to feature maps, in evaluation mode.
        split: Studies.
        spec: Input of the network.
        device: Where `encode` works.
        progress: Hears of every batch.
        most: So many studies at most: see `spread_evenly`.
    """
    images = StandardizedImages(split.images, spec, spread_evenly(len(split.studies), most))
    loader = DataLoader(images, batch_size=16)
    rows = [
        average_pool(encode(batch["image"].to(device))).float().cpu()
        for batch in tracked(loader, "features", len(loader), progress)
    ]
    return torch.cat(rows)


def spread_evenly(count: int, most: int) -> list[int]:
    """Positions of at most `most` of `count` studies, spread evenly over them."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, most).round())]


def validate(output: SplitOutput, targets: Targets, objective: TwoPassObjective) -> dict[str, float]:
    """Figures that can choose an epoch: the loss, and the mean AUC within source of image and clinical values."""
    scores = torch.softmax(output.fused.logits.double(), dim=1).numpy()
    alone = torch.softmax(output.image_only.logits.double(), dim=1).numpy()
    return {
        "loss": objective.validation_loss(output.image_only, output.fused, targets),
        "within_source_auc": mean_within_source_auc(output.studies, scores),
        "image_only_within_source_auc": mean_within_source_auc(output.studies, alone),
    }


def mean_within_source_auc(studies: Sequence[Study], probabilities: npt.NDArray[np.float64]) -> float:
    """Mean AUC-ROC over the comparisons that the studies can answer, each within its source; see `tasks_in`.

    NaN where no source can answer. Sources are never mixed: telling them apart is no merit.

    Args:
        studies: Studies.
        probabilities: (study, label).
    """
    areas = []
    for task in tasks_in(studies):
        rows = task.rows(studies)
        truth = [studies[i].label == task.positive for i in rows]
        areas.append(roc_auc_score(truth, probabilities[rows, LABELS.index(task.positive)]))
    return float(np.mean(areas)) if areas else float("nan")


@contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """A network in evaluation mode, and every module of it as before afterwards."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def quiet(engine: Any) -> Any:
    """An engine that leaves telling of errors to whoever called it."""
    engine.logger.setLevel("CRITICAL")
    return engine
