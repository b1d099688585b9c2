"""Sanity check of heat maps: destroy what the network learned, and the maps must change.

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018. A map that survives random weights shows the image's
edges and not what the model thinks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from ...errors import BundleError
from ...prediction.predictor import Predictor
from ...prediction.result import Prediction
from ...progress import Progress, SilentProgress, tracked
from ...study.image import MedicalImage
from ...study.reading import read_image
from ...study.record import ClinicalRecord
from .answers import FloatArray
from .bootstrap import RESAMPLES, Figure, IntArray, intervals

STAGES = ("disease head", "fusion and heads", "encoder", "everything")
SEEDS = (0, 1)
MOST_IMAGES = 16


@dataclass(frozen=True)
class Randomization:
    """How alike the maps are before and after randomizing part of the network.

    Attributes:
        stage: Which part, one of STAGES.
        maps: Maps compared.
        vanished: Maps that were empty or even afterwards, and have no rank correlation.
        similarity: Spearman's rank correlation over the cells of the map, mean over images and seeds; 1 is unchanged.
    """

    stage: str
    maps: int
    vanished: int
    similarity: Figure


def parameter_randomization(
    predictor: Predictor,
    images: Sequence[tuple[Path, ClinicalRecord, str]],
    resamples: int = RESAMPLES,
    progress: Progress | None = None,
) -> list[Randomization]:
    """Rank correlation of maps after shuffling the weights of one part, then of all.

    Weights are shuffled inside each tensor, so that their scale stays and only what was learned goes.

    Args:
        predictor: Model; left as it was.
        images: Path, clinical record and finding whose map is looked at; at most MOST_IMAGES of them, evenly chosen.
        resamples: Of the bootstrap over images.
        progress: Hears of every stage.
    """
    chosen = (
        [images[i] for i in np.unique(np.linspace(0, len(images) - 1, MOST_IMAGES).round().astype(int))]
        if images
        else []
    )
    read = [(read_image(path), record, label) for path, record, label in chosen]
    originals = [_map(predictor(image, record), label) for image, record, label in read]
    usable = [i for i, heat in enumerate(originals) if heat is not None and np.ptp(heat) > 0]
    if not usable:
        return []
    found = []
    for stage in tracked(STAGES, "randomization", len(STAGES), progress or SilentProgress()):
        similarity = np.full((len(usable), len(SEEDS)), np.nan)
        for column, seed in enumerate(SEEDS):
            shuffled = shuffled_copy(predictor, stage, seed)
            for row, i in enumerate(usable):
                similarity[row, column] = _similarity(originals[i], _again(shuffled, *read[i]))
        vanished = int(np.isnan(similarity).sum())
        figure = intervals(partial(_mean_similarity, similarity), [str(chosen[i][0]) for i in usable], resamples)[""]
        found.append(Randomization(stage, similarity.size, vanished, figure))
    return found


def _mean_similarity(similarity: FloatArray, rows: IntArray) -> dict[str, float]:
    drawn = similarity[rows]
    return {"": float(np.nanmean(drawn)) if np.isfinite(drawn).any() else math.nan}


def shuffled_copy(predictor: Predictor, stage: str, seed: int) -> Predictor:
    """A copy of the model with the weights of one part shuffled."""
    network = copy.deepcopy(predictor.network)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if _belongs(name, stage):
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return Predictor(predictor.bundle, network, predictor.device, predictor.settings)


def _belongs(name: str, stage: str) -> bool:
    encoder = name.startswith("encoder.")
    return {
        "disease head": name.startswith("disease."),
        "fusion and heads": not encoder,
        "encoder": encoder,
        "everything": True,
    }[stage]


def _again(predictor: Predictor, image: MedicalImage, record: ClinicalRecord, label: str) -> FloatArray | None:
    try:
        return _map(predictor(image, record), label)
    except BundleError:  # random weights may well overflow
        return None


def _map(prediction: Prediction, label: str) -> FloatArray | None:
    return None if prediction.maps is None else prediction.maps.raw(label).astype(np.float64)


def _similarity(before: FloatArray | None, after: FloatArray | None) -> float:
    if before is None or after is None or np.ptp(after) == 0:
        return float("nan")
    return float(spearmanr(before.ravel(), after.ravel()).statistic)
