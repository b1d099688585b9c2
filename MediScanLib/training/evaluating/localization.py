"""Whether heat maps lie where readers saw the lesion, beside a blob in the center and beside a second reader.

The scores are those of `prediction.localization`; the threshold of the overlap is tuned on val.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import DataError
from ...prediction.localization import BoolArray, HeatArray, centered_blob, overlap, pointing, relevance_mass
from ...prediction.predictor import Predictor
from ...progress import Progress, SilentProgress, tracked
from ...study.reading import read_image
from ..regions import NO_COPY, Region
from .bootstrap import RESAMPLES, Figure, IntArray, intervals

MODEL, BLOB = "model", "centered blob"
POINTING, OVERLAP, MASS = "pointing game", "IoU", "relevance mass"
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Candidates, as fractions of a map's own peak."""


@dataclass(frozen=True)
class Localized:
    """One image: the scores of its maps, and those of the overlap at every candidate threshold.

    Attributes:
        region: What readers marked.
        label: Finding whose map was scored.
        area: Share of the image that is marked; the relevance mass of an even map.
        pointing: By rater, 1.0 where the peak lies inside the marks.
        mass: By rater.
        overlap: By rater, IoU at each of THRESHOLDS.
    """

    region: Region
    label: str
    area: float
    pointing: Mapping[str, float]
    mass: Mapping[str, float]
    overlap: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Localization:
    """Scores of one rater on one group of images.

    Attributes:
        rater: MODEL, BLOB, or the second reader.
        group: Source of images and marks.
        label: Finding, or "all".
        images: Number of images.
        area: Mean share of the image that is marked.
        threshold: Fraction of the map's peak for the IoU, the median where models differ; None for a reader.
        figures: By POINTING, OVERLAP, MASS; for the model also "pointing game - blob's", paired.
    """

    rater: str
    group: str
    label: str
    images: int
    area: float
    threshold: float | None
    figures: Mapping[str, Figure]


def wanted_regions(regions: Iterable[Region], split: str) -> list[Region]:
    """Regions to score: those of the split, those of val for the threshold, never those of train.

    Lesion images without a copy in the manifest belong to no split: they are kept for the report on test.
    """
    splits = {split, "val"} | ({NO_COPY} if split == "test" else set())
    return [region for region in regions if region.split in splits - {"train"}]


def localize(predictor: Predictor, regions: Sequence[Region], progress: Progress | None = None) -> list[Localized]:
    """Score the maps of every region.

    Where the manifest does not name the finding, the map of the likelier one of pneumonia and covid is taken. Regions
    of a finding that the model has no map of are left out.

    Raises:
        DataError: Volumes, for which there are no boxes.
    """
    found = []
    for region in tracked(regions, "localization", len(regions), progress or SilentProgress()):
        image = read_image(region.image)
        if image.shape[0] > 1:
            raise DataError(f"{region.image}: boxes and masks are scored on single images, not on volumes.")
        prediction = predictor(image, region.record)
        maps = prediction.maps
        candidates = [region.label] if region.label else ["pneumonia", "covid"]
        labels = [label for label in candidates if label in prediction.probabilities]
        if maps is None or not labels:
            continue
        label = max(labels, key=lambda name: prediction.probabilities[name])
        marked = region.marked(image.shape[1:])
        heats = {MODEL: maps.on_image(label)[0], BLOB: centered_blob(image.shape[1:])}
        found.append(
            Localized(
                region=region,
                label=label,
                area=float(marked.mean()),
                pointing={rater: pointing(heat, marked) for rater, heat in heats.items()},
                mass={rater: relevance_mass(heat, marked) for rater, heat in heats.items()},
                overlap={rater: _overlaps(heat, marked) for rater, heat in heats.items()},
            )
        )
    return found


def _overlaps(heat: HeatArray, marked: BoolArray) -> tuple[float, ...]:
    """IoU at each of THRESHOLDS."""
    peak = heat.max()
    return tuple(overlap(heat, marked, threshold * peak) for threshold in THRESHOLDS)


def summarize_localization(
    by_model: Sequence[Sequence[Localized]], split: str, resamples: int = RESAMPLES
) -> list[Localization]:
    """By source of the marks, by finding within it, and beside it the blob.

    Args:
        by_model: What each model's maps scored; the thresholds of its IoU come from its val alone.
        split: Which regions to report.
        resamples: Of the bootstrap.
    """
    reported = []
    for localized in by_model:
        tuning = [item for item in localized if item.region.split == "val"]
        thresholds = {rater: best_threshold(tuning, rater) for rater in (MODEL, BLOB)}
        reported += [_Tuned(item, thresholds) for item in localized if item.region.split in (split, NO_COPY)]
    table = []
    for group in dict.fromkeys(tuned.item.region.group for tuned in reported):
        own = [tuned for tuned in reported if tuned.item.region.group == group]
        labels = sorted({tuned.item.label for tuned in own})
        for label in labels if len(labels) == 1 else ["all", *labels]:
            members = [tuned for tuned in own if label in ("all", tuned.item.label)]
            table += _raters(members, group, label, resamples)
    return table


def best_threshold(localized: Sequence[Localized], rater: str) -> float | None:
    """Fraction of the peak with the largest mean IoU; None where there is nothing to tune it on."""
    if not localized:
        return None
    mean = np.mean([item.overlap[rater] for item in localized], axis=0)
    return THRESHOLDS[int(mean.argmax())]


def readers_agreement(
    regions: Sequence[Region], shape: tuple[int, int] = (512, 512), resamples: int = RESAMPLES
) -> list[Localization]:
    """Two readers on the same image, each scored as if it were a map of the other, whatever the split.

    A reader points at the middle of the largest box.
    """
    pairs = [(region, first, second) for region in regions for first, second in permutations(region.boxes, 2)]
    table = []
    for group, label in dict.fromkeys((region.group, region.label) for region, _, _ in pairs):
        own = [pair for pair in pairs if (pair[0].group, pair[0].label) == (group, label)]
        scores = np.array([_reader_scores(region, first, second, shape) for region, first, second in own])
        figures = intervals(partial(_mean_scores, scores), [region.patient for region, _, _ in own], resamples)
        images = {region.image for region, _, _ in own}
        area = float(np.mean([region.marked(shape).mean() for region, _, _ in own]))
        table.append(Localization("second reader (all splits)", group, label, len(images), area, None, figures))
    return table


def _mean_scores(scores: npt.NDArray[np.float64], rows: IntArray) -> dict[str, float]:
    pointed, joined, mass = scores[rows].mean(axis=0)
    return {POINTING: float(pointed), OVERLAP: float(joined), MASS: float(mass)}


def _reader_scores(region: Region, first: str, second: str, shape: tuple[int, int]) -> tuple[float, float, float]:
    truth, other = region.marked(shape, first), region.marked(shape, second)
    x, y, width, height = max(region.boxes[second], key=lambda box: box[2] * box[3])
    middle = truth[int((y + height / 2) * shape[0]), int((x + width / 2) * shape[1])]
    joined = (truth & other).sum()
    return float(middle), float(joined / (truth | other).sum()), float(joined / other.sum())


class _Tuned(NamedTuple):
    """Scores of one image with the thresholds of the model that made its maps, by rater."""

    item: Localized
    thresholds: Mapping[str, float | None]

    def overlap(self, rater: str) -> float:
        """IoU at the threshold, NaN where there was nothing to tune it on."""
        threshold = self.thresholds[rater]
        return float("nan") if threshold is None else self.item.overlap[rater][THRESHOLDS.index(threshold)]


def _raters(members: Sequence[_Tuned], group: str, label: str, resamples: int) -> list[Localization]:
    points = {rater: np.array([tuned.item.pointing[rater] for tuned in members]) for rater in (MODEL, BLOB)}
    masses = {rater: np.array([tuned.item.mass[rater] for tuned in members]) for rater in (MODEL, BLOB)}
    overlaps = {
        rater: np.array([tuned.overlap(rater) for tuned in members])
        for rater in (MODEL, BLOB)
        if all(tuned.thresholds[rater] is not None for tuned in members)
    }

    def statistic(rows: IntArray) -> dict[str, float]:
        figures = {}
        for rater in (MODEL, BLOB):
            figures[f"{rater}|{POINTING}"] = float(points[rater][rows].mean())
            figures[f"{rater}|{MASS}"] = float(masses[rater][rows].mean())
            if rater in overlaps:
                figures[f"{rater}|{OVERLAP}"] = float(overlaps[rater][rows].mean())
        figures[f"{MODEL}|{POINTING} - blob's"] = figures[f"{MODEL}|{POINTING}"] - figures[f"{BLOB}|{POINTING}"]
        return figures

    figures = intervals(statistic, [tuned.item.region.patient for tuned in members], resamples)
    area = float(np.mean([tuned.item.area for tuned in members]))
    return [
        Localization(
            rater,
            group,
            label,
            len(members),
            area,
            float(np.median([tuned.thresholds[rater] for tuned in members])) if rater in overlaps else None,
            {name.split("|")[1]: figure for name, figure in figures.items() if name.startswith(f"{rater}|")},
        )
        for rater in (MODEL, BLOB)
    ]
