"""An evaluation from a manifest and a model to metrics.json, predictions.csv and report.html."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...prediction.predictor import Predictor
from ...progress import Progress, SilentProgress
from ...study.record import ClinicalRecord
from ..checkpoint import write_atomically
from ..datasets import Study, read_manifest
from .answers import Answers, answers_csv, read_columns
from .asking import MEAN_FEATURE_STUDIES, ask, mean_feature, without_image
from .bootstrap import RESAMPLES
from .cases import Draw, choose_cases, draw_cases
from .learning import read_log
from .localization import Localization, localize, readers_agreement, summarize_localization, wanted_regions
from .page import render_page
from .randomization import parameter_randomization
from .regions import Region, read_boxes, read_lesions
from .summary import Subject, Summary, summarize, to_json

METRICS_FILE, PREDICTIONS_FILE, REPORT_FILE = "metrics.json", "predictions.csv", "report.html"
HIDDEN_IMAGE = (
    f"The image is replaced by the mean feature of up to {MEAN_FEATURE_STUDIES} training images, in every cell. "
    "The head is the same trained head: this is what the clinical values still say when the image says nothing, and "
    "not what a model trained on clinical values alone would reach."
)


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Attributes:
        manifest: Manifest.
        split: train, val or test.
        output: Folder for the three files.
        boxes: Readers' boxes, None without.
        lesions: Readers' masks, None without.
        log: Training log with learning curves, None without.
        resamples: Of the bootstrap.
    """

    manifest: Path
    split: str
    output: Path
    boxes: Path | None = None
    lesions: Path | None = None
    log: Path | None = None
    resamples: int = RESAMPLES


def evaluate(request: Request, predictor: Predictor, draw: Draw, progress: Progress | None = None) -> Summary:
    """Evaluate a model and write the three files; predictions.csv is there as soon as the model has answered.

    Args:
        request: What to evaluate.
        predictor: Model, on its device.
        draw: Makes the pictures of single cases.
        progress: Hears how far it has come and may cancel.

    Raises:
        DataError: The manifest or one of its files is not as it should be, or the split is empty.
        WriteError: A file cannot be written.
        CancelledError: `progress` asked to stop.
    """
    started = time.perf_counter()
    progress = progress or SilentProgress()
    everything = read_manifest(request.manifest)
    studies = [study for study in everything if study.split == request.split]
    train = [study for study in everything if study.split == "train"]
    if not studies:
        raise DataError(f"{request.manifest}: no study is in split {request.split}.")
    regions = _regions(request, everything)
    log = read_log(request.log) if request.log is not None else None
    _make_folder(request.output)  # before anything that takes long

    hidden = without_image(predictor, mean_feature(predictor, train, progress))
    answers = ask(predictor, hidden, studies, read_columns(request.manifest, studies), progress)
    _write(request.output / PREDICTIONS_FILE, answers_csv(answers))

    localization = _localization(predictor, regions, request, progress)
    randomization = parameter_randomization(
        predictor, _images_for_randomization(regions, answers, request.split), request.resamples, progress
    )
    card = predictor.bundle.card
    subject = Subject(
        model=card.name,
        version=card.version,
        sha256=predictor.bundle.sha256,
        manifest=request.manifest.name,
        manifest_sha256=hashlib.sha256(request.manifest.read_bytes()).hexdigest(),
        split=request.split,
        hidden_image=HIDDEN_IMAGE,
        resamples=request.resamples,
    )
    progress.report("figures", 0, 1)
    summary = summarize(answers, subject, train, read_columns(request.manifest, train), localization, randomization)
    summary = dataclasses.replace(
        summary, subject=dataclasses.replace(subject, seconds=round(time.perf_counter() - started, 1))
    )
    _write(request.output / METRICS_FILE, to_json(summary))
    progress.report("figures", 1, 1)
    pictures = draw_cases(choose_cases(answers), answers, predictor, draw)
    _write(request.output / REPORT_FILE, render_page(summary, answers, card, pictures, log))
    return summary


def _regions(request: Request, studies: Sequence[Study]) -> list[Region]:
    regions = read_boxes(request.boxes, studies) if request.boxes is not None else []
    return regions + (read_lesions(request.lesions, studies) if request.lesions is not None else [])


def _localization(
    predictor: Predictor, regions: Sequence[Region], request: Request, progress: Progress
) -> list[Localization]:
    localized = localize(predictor, wanted_regions(regions, request.split), progress)
    table = summarize_localization(localized, request.split, request.resamples)
    return table + (readers_agreement(regions, resamples=request.resamples) if table else [])


def _images_for_randomization(
    regions: Sequence[Region], answers: Answers, split: str
) -> list[tuple[Path, ClinicalRecord, str]]:
    """Images with a lesion that readers marked, or where there are none the studies with a finding."""
    marked = [(r.image, r.record, r.label) for r in regions if r.split == split and r.label in answers.labels]
    if marked:
        return marked
    return [(s.image, s.record, s.label) for s in answers.studies if s.label in answers.labels and s.label != "normal"]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error}). Name another folder.") from error


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda stream: stream.write(text.encode()))
