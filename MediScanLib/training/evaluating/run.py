"""An evaluation from a manifest and a model to metrics.json, predictions.csv and report.html."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...prediction.modalities import knows_hidden_images
from ...prediction.predictor import Predictor
from ...progress import Progress, SilentProgress
from ...study.record import ClinicalRecord
from ...writing import atomic_write
from ..datasets import Study, read_manifest
from ..regions import NO_COPY, NO_MARKS, MarkFiles, Region, regions_of
from ..trainer import HISTORY
from .answers import Answers, answers_csv, join_answers, read_columns
from .asking import MEAN_FEATURE_STUDIES, ask, hidden_feature, without_image
from .bootstrap import RESAMPLES
from .cases import Draw, choose_cases, draw_cases
from .learning import LearningLog, mean_log, read_log
from .localization import Localization, localize, readers_agreement, summarize_localization, wanted_regions
from .page import render_page
from .randomization import parameter_randomization
from .shortcuts import Learned
from .summary import Subject, Summary, summarize, to_json

METRICS_FILE, PREDICTIONS_FILE, REPORT_FILE = "metrics.json", "predictions.csv", "report.html"
_SAME_HEAD = (
    " The head is the same trained head: this is what the clinical values still say when the image says nothing, and "
    "not what a model trained on clinical values alone would reach."
)
HIDDEN_BY_ZEROS = "The image is hidden as it was hidden now and then in training: its features are zeros." + _SAME_HEAD
HIDDEN_BY_MEAN = (
    f"The image is replaced by the mean feature of up to {MEAN_FEATURE_STUDIES} training images, in every cell."
    + _SAME_HEAD
)


@dataclass(frozen=True)
class Request:
    """What to evaluate.

    Attributes:
        title: Name of what is evaluated, where it is not a single model.
        output: Folder for the three files.
        marks: Readers' boxes and masks.
        log: Training log with learning curves; None for those that lie beside the models, if they do.
        resamples: Of the bootstrap.
    """

    output: Path
    marks: MarkFiles = NO_MARKS
    log: Path | None = None
    resamples: int = RESAMPLES
    title: str = ""


@dataclass(frozen=True, eq=False)
class Part:
    """A model and what it is asked about.

    Attributes:
        predictor: Model, on its device.
        manifest: Manifest, with the studies that the model was trained on in train.
        split: Which of its studies to ask about.
    """

    predictor: Predictor
    manifest: Path
    split: str

    @cached_property
    def everything(self) -> list[Study]:
        """All studies of the manifest."""
        return read_manifest(self.manifest)

    @cached_property
    def studies(self) -> list[Study]:
        """Those to ask about."""
        return self.of_split(self.split)

    def of_split(self, split: str) -> list[Study]:
        """Studies of one split."""
        return [study for study in self.everything if study.split == split]


def evaluate(request: Request, parts: Sequence[Part], draw: Draw, progress: Progress | None = None) -> Summary:
    """Evaluate a model, or the models of a cross-validation together, and write the three files.

    predictions.csv is there as soon as all have answered.

    Args:
        request: What to measure.
        parts: One for each model; no study is in two.
        draw: Makes the pictures of single cases.
        progress: Hears how far it has come and may cancel.

    Raises:
        DataError: A manifest or one of the files is not as it should be, or a split is empty.
        WriteError: A file cannot be written.
        CancelledError: `progress` asked to stop.
    """
    started = time.perf_counter()
    progress = progress or SilentProgress()
    for part in parts:
        if not part.studies:
            raise DataError(f"{part.manifest}: no study is in split {part.split}.")
    regions = [regions_of(part.everything, request.marks) for part in parts]
    log = _log(request, parts)
    _make_folder(request.output)  # before anything that takes long

    answers = join_answers([_ask(part, progress) for part in parts])
    _write(request.output / PREDICTIONS_FILE, answers_csv(answers))

    localization = _localization(parts, regions, request, progress)
    randomization = parameter_randomization(
        parts[0].predictor,
        _images_for_randomization(regions[0], parts[0], answers.labels),
        request.resamples,
        progress,
    )
    progress.report("figures", 0, 1)
    ends = np.cumsum([len(part.studies) for part in parts])
    learned = [_learned(part, int(end)) for part, end in zip(parts, ends, strict=True)]
    subject = _subject(request, parts)
    summary = summarize(answers, subject, learned, localization, randomization)
    summary = dataclasses.replace(
        summary, subject=dataclasses.replace(subject, seconds=round(time.perf_counter() - started, 1))
    )
    _write(request.output / METRICS_FILE, to_json(summary))
    progress.report("figures", 1, 1)
    pictures = draw_cases(
        choose_cases(answers),
        answers,
        lambda row: parts[int(np.searchsorted(ends, row, side="right"))].predictor,
        draw,
    )
    card = parts[0].predictor.bundle.card
    _write(request.output / REPORT_FILE, render_page(summary, answers, card, pictures, log))
    return summary


def check_request(request: Request, manifest: Path) -> None:
    """Read everything that a request names beside the models, so that a bad file is found before they are trained.

    Raises:
        DataError: As for `evaluate`.
    """
    regions_of(read_manifest(manifest), request.marks)
    if request.log is not None:
        read_log(request.log)
    _make_folder(request.output)


def _log(request: Request, parts: Sequence[Part]) -> LearningLog | None:
    beside = [part.predictor.bundle.folder.parent / HISTORY for part in parts]
    paths = [path for path in beside if path.is_file()] if request.log is None else [request.log]
    return mean_log([read_log(path) for path in paths]) if paths else None


def _ask(part: Part, progress: Progress) -> Answers:
    hidden = without_image(part.predictor, hidden_feature(part.predictor, part.of_split("train"), progress))
    return ask(part.predictor, hidden, part.studies, read_columns(part.manifest, part.studies), progress)


def _learned(part: Part, end: int) -> Learned:
    train = part.of_split("train")
    return Learned(np.arange(end - len(part.studies), end), train, read_columns(part.manifest, train))


def _subject(request: Request, parts: Sequence[Part]) -> Subject:
    bundles = [part.predictor.bundle for part in parts]
    card = bundles[0].card
    single = len(parts) == 1
    hashes = "".join(bundle.sha256 for bundle in bundles)
    return Subject(
        model=request.title or card.name,
        version=card.version if single else "",  # a recipe has none
        sha256=hashes if single else hashlib.sha256(hashes.encode()).hexdigest(),
        manifest=parts[0].manifest.name,
        manifest_sha256=hashlib.sha256(b"".join(part.manifest.read_bytes() for part in parts)).hexdigest(),
        split=parts[0].split if single else f"{len(parts)} folds, each held out in turn",
        hidden_image=HIDDEN_BY_ZEROS if knows_hidden_images(card) else HIDDEN_BY_MEAN,
        resamples=request.resamples,
    )


def _localization(
    parts: Sequence[Part], regions: Sequence[Sequence[Region]], request: Request, progress: Progress
) -> list[Localization]:
    by_model = []
    for number, (part, own) in enumerate(zip(parts, regions, strict=True)):
        wanted = wanted_regions(own, part.split)
        if number:  # what no manifest holds is asked once, of the first model
            wanted = [region for region in wanted if region.split != NO_COPY]
        by_model.append(localize(part.predictor, wanted, progress))
    table = summarize_localization(by_model, parts[0].split, request.resamples)
    return table + (readers_agreement(regions[0], resamples=request.resamples) if table else [])


def _images_for_randomization(
    regions: Sequence[Region], part: Part, labels: Sequence[str]
) -> list[tuple[Path, ClinicalRecord, str]]:
    """Images with a lesion that readers marked, or where there are none the studies with a finding."""
    marked = [(r.image, r.record, r.label) for r in regions if r.split == part.split and r.label in labels]
    if marked:
        return marked
    return [(s.image, s.record, s.label) for s in part.studies if s.label in labels and s.label != "normal"]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error}). Name another folder.") from error


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as stream:
        stream.write(text.encode())
