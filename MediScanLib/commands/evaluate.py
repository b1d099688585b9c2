"""`mediscan evaluate`: how good a model is on one split of a manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..notice import RESEARCH_USE_NOTICE

if TYPE_CHECKING:
    from ..progress import Progress
    from ..training.evaluating.run import Part, Request

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(epilog=RESEARCH_USE_NOTICE)
@click.option("--data", required=True, type=_FILE, metavar="MANIFEST", help="Manifest (CSV).")
@click.option("--split", type=click.Choice(("train", "val", "test")), help="Studies to ask about. [test]")
@click.option("--model", help="Name or folder of a model bundle. [mediscan-general]")
@click.option(
    "--folds", type=click.IntRange(min=2), help="Train a model for each of so many folds and ask it about that fold."
)
@click.option("--config", type=_FILE, help="With --folds: settings of the training (YAML).")
@click.option("--cache", type=click.Path(path_type=Path), help="With --folds: prepared images. [OUTPUT/cache]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--boxes", type=_FILE, help="Readers' boxes (CSV), to score the heat maps; --folds also teaches them.")
@click.option("--lesions", type=_FILE, help="Readers' masks (CSV), likewise.")
@click.option("--log", type=_FILE, help="Training log (CSV) for the learning curves. [history.csv beside the model]")
@click.option("--resamples", type=click.IntRange(min=1), default=1000, show_default=True, help="Of the bootstrap.")
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
def evaluate(
    data: Path,
    split: str | None,
    model: str | None,
    folds: int | None,
    config: Path | None,
    cache: Path | None,
    device: str,
    boxes: Path | None,
    lesions: Path | None,
    log: Path | None,
    resamples: int,
    output: Path,
) -> None:
    """Measure a model: metrics.json, predictions.csv and report.html.

    Each disease is scored within its source, with patient-level bootstrap intervals; figures across sources stand
    apart. Choose on val, report on test.

    With --folds the recipe is measured and not one model: patients stay whole, and every study is answered by a model
    that was trained without its patient. Folds and models are kept in OUTPUT, so that the same command goes on after
    a stop.
    """
    if folds is None:
        for name, value in (("--config", config), ("--cache", cache)):
            if value is not None:
                raise click.UsageError(f"{name} is for --folds; a finished model brings its own settings.")
    elif split is not None or model is not None:
        raise click.UsageError("--folds asks about every study, of models that it trains: leave out --split, --model.")

    from tqdm import tqdm

    from ..progress import CallbackProgress
    from ..report.picture import draw_prediction
    from ..training.evaluating import run
    from ..training.regions import MarkFiles

    title = "" if folds is None else f"Cross-validation of {config.stem if config else 'the default recipe'}"
    request = run.Request(output, marks=MarkFiles(boxes, lesions), log=log, resamples=resamples, title=title)
    with tqdm(disable=None) as bar:

        def show(stage: str, done: int, total: int) -> None:
            bar.set_description(stage, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        progress = CallbackProgress(show)
        if folds is None:
            parts = [_part(model or "mediscan-general", device, data, split or "test")]
        else:
            run.check_request(request, data)
            parts = _trained_parts(data, folds, config, cache, device, request, progress)
        summary = run.evaluate(request, parts, draw_prediction, progress)
    for row in summary.within_source:
        figure = row.figures["AUC-ROC"]
        click.echo(
            f"{row.source:14} {row.task:30} n={row.studies:<5} AUC-ROC {figure.value:.3f} "
            f"({figure.low:.3f} to {figure.high:.3f})"
        )
    click.echo(f"Report: {(output / run.REPORT_FILE).resolve()}")
    click.echo(RESEARCH_USE_NOTICE)


def _part(model: str | Path, device: str, manifest: Path, split: str) -> Part:
    from ..config import InferenceConfig
    from ..prediction.predictor import Predictor
    from ..training.evaluating.run import Part

    settings = InferenceConfig(explainability=True, severity_scoring=True)
    return Part(Predictor.load(model, device, settings), manifest, split)


def _trained_parts(
    data: Path, folds: int, config: Path | None, cache: Path | None, device: str, request: Request, progress: Progress
) -> list[Part]:
    from ..config import load_config
    from ..prediction.devices import resolve_device
    from ..training.folds import prepare_folds, train_fold
    from ..training.history import describe_epoch

    settings, where = load_config(config), resolve_device(device)
    parts = []
    for fold in prepare_folds(data, folds, request.output):

        def tell(row: Mapping[str, float], number: int = fold.number) -> None:
            click.echo(f"fold {number}, {describe_epoch(row)}", err=True)

        bundle = train_fold(fold, settings, cache or request.output / "cache", where, progress, request.marks, tell)
        parts.append(_part(bundle.folder, device, fold.manifest, "test"))
    return parts
