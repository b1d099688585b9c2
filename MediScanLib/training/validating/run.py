"""A validation from a manifest and models to report.html, validation.json and cases.csv; resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ...errors import DataError
from ...prediction.predictor import Predictor
from ...progress import Progress, SilentProgress
from ...writing import atomic_write
from ..datasets import Study, read_manifest
from ..evaluating.localization import readers_agreement
from ..regions import regions_of
from .agreement import agreements
from .cases import Case, choose_cases, stress_studies
from .cases_csv import cases_csv
from .explaining import explain_cases
from .gallery import DrawTile, make_gallery
from .journal import Journal
from .models import Model, name_models
from .page import render_page
from .quality import differences, method_scores
from .randomizing import randomize
from .request import RANDOMIZATION, STRESS, Request
from .results import Results, collect
from .stability import robustness, shuffled
from .stress import stress
from .stress_figures import stress_points
from .summary import ModelFacts, Subject, Summary, to_json

REPORT_FILE, FIGURES_FILE, CASES_FILE, JOURNAL_FILE = "report.html", "validation.json", "cases.csv", "finished.jsonl"


def validate(
    request: Request, predictors: Sequence[Predictor], draw: DrawTile, progress: Progress | None = None
) -> Summary:
    """Validate models and their explanations, and write the files.

    Every finished piece is on the disk at once: killed and started again, the run goes on where it was.

    Args:
        request: What to validate.
        predictors: Models side by side; the first decides which finding is looked at where the manifest does not.
        draw: Makes the pictures of the gallery.
        progress: Hears how far it has come and may cancel.

    Raises:
        UsageError: The request asks for what does not exist, or the folder holds a run with other settings.
        DataError: A manifest or one of the files is not as it should be, or the split is empty.
        WriteError: A file cannot be written.
        CancelledError: `progress` asked to stop.
    """
    started = time.perf_counter()
    progress = progress or SilentProgress()
    request.check()
    models = name_models(predictors)
    studies = read_manifest(request.data)
    if not any(study.split == request.split for study in studies):
        raise DataError(f"{request.data}: no study is in split {request.split}.")
    regions = regions_of(studies, request.marks)
    cases = choose_cases(request, studies, regions)
    stressed = stress_studies(request, studies) if STRESS in request.checks else []
    _make_folder(request.output)
    with Journal(request.output / JOURNAL_FILE, identity_of(request, models)) as journal:
        failures = explain_cases(cases, models, request, journal, progress)
        if RANDOMIZATION in request.checks:
            failures += randomize(cases, models, request, journal, progress)
        failures += stress(stressed, studies, models, request, journal, progress)

        progress.report("figures", 0, 1)
        results = collect(cases, models, request, journal)
        agreed = agreements(results, request)
        readers = readers_agreement(regions, resamples=request.resamples) if results.blob else []
        summary = Summary(
            subject=_subject(request, models, cases, results, stressed, journal),
            methods=method_scores(results, request),
            readers=readers,
            differences=differences(results, request),
            agreement=agreed.table,
            robustness=robustness(results, request),
            shuffled=shuffled(cases, models, request, journal) if RANDOMIZATION in request.checks else [],
            stress=stress_points(stressed, models, request, journal),
            failures=failures,
        )
    _write(request.output / CASES_FILE, cases_csv(results, agreed))
    gallery = make_gallery(results, agreed, request, draw)
    subject = dataclasses.replace(summary.subject, seconds=round(time.perf_counter() - started, 1))
    summary = dataclasses.replace(summary, subject=subject)
    _write(request.output / FIGURES_FILE, to_json(summary))
    _write(request.output / REPORT_FILE, render_page(summary, gallery))
    progress.report("figures", 1, 1)
    return summary


def identity_of(request: Request, models: Sequence[Model]) -> dict[str, Any]:
    """Everything that a finished piece depends on. Resamples and gallery are made anew in every run."""
    return {
        "mediscan": __version__,
        "manifest": _sha256(request.data),
        "marks": {name: _sha256(path) for name, path in request.marks.there.items()},
        "models": [model.identity for model in models],
        **{
            name: getattr(request, name)
            for name in ("split", "methods", "checks", "cases", "stress_studies", "steps", "random_orders", "seed")
        },
    }


def _subject(
    request: Request,
    models: Sequence[Model],
    cases: Sequence[Case],
    results: Results,
    stressed: Sequence[Study],
    journal: Journal,
) -> Subject:
    manifest_sha256 = _sha256(request.data)
    return Subject(
        models=[
            ModelFacts(
                name=model.name,
                title=model.predictor.bundle.card.title,
                sha256=model.predictor.bundle.sha256,
                licence=model.predictor.bundle.card.weights_licence,
                cautions=list(model.predictor.bundle.card.cautions),
                same_manifest=model.was_trained_on(manifest_sha256),
            )
            for model in models
        ],
        methods=list(request.methods),
        checks=list(request.checks),
        manifest=request.data.name,
        manifest_sha256=manifest_sha256,
        split=request.split,
        marks=[path.name for path in request.marks.there.values()],
        cases=dict(Counter(case.group for case in results.cases)),
        tuning=sum(case.split == "val" and case.region is not None for case in cases),
        stressed=dict(Counter(study.source for study in stressed)),
        scale_meanings={item.method: item.piece["scale_meaning"] for item in results.found},
        steps=request.steps,
        random_orders=request.random_orders,
        resamples=request.resamples,
        seed=request.seed,
        resumed=journal.found,
    )


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error}). Name another folder.") from error


def _write(path: Path, text: str) -> None:
    with atomic_write(path) as stream:
        stream.write(text.encode())
