"""`mediscan evaluate`: how good a model is on one split of a manifest."""

from __future__ import annotations

from pathlib import Path

import click

from ..notice import RESEARCH_USE_NOTICE

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(epilog=RESEARCH_USE_NOTICE)
@click.option("--data", required=True, type=_FILE, metavar="MANIFEST", help="Manifest (CSV).")
@click.option(
    "--split", type=click.Choice(("train", "val", "test")), default="test", show_default=True, help="Studies."
)
@click.option("--model", default="mediscan-general", show_default=True, help="Name or folder of a model bundle.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--boxes", type=_FILE, help="Readers' boxes (CSV), to score the heat maps.")
@click.option("--lesions", type=_FILE, help="Readers' masks (CSV), to score the heat maps.")
@click.option("--log", type=_FILE, help="Training log (CSV) for the learning curves.")
@click.option("--resamples", type=click.IntRange(min=1), default=1000, show_default=True, help="Of the bootstrap.")
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
def evaluate(
    data: Path,
    split: str,
    model: str,
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
    """
    from tqdm import tqdm

    from ..config import InferenceConfig
    from ..prediction.predictor import Predictor
    from ..progress import CallbackProgress
    from ..report.picture import draw_prediction
    from ..training.evaluating import run

    request = run.Request(
        manifest=data, split=split, output=output, boxes=boxes, lesions=lesions, log=log, resamples=resamples
    )
    predictor = Predictor.load(model, device, InferenceConfig(explainability=True, severity_scoring=True))
    with tqdm(disable=None) as bar:

        def show(stage: str, done: int, total: int) -> None:
            bar.set_description(stage, refresh=False)
            bar.total, bar.n = total, done
            bar.refresh()

        summary = run.evaluate(request, predictor, draw_prediction, CallbackProgress(show))
    for row in summary.within_source:
        figure = row.figures["AUC-ROC"]
        click.echo(
            f"{row.source:14} {row.task:30} n={row.studies:<5} AUC-ROC {figure.value:.3f} "
            f"({figure.low:.3f} to {figure.high:.3f})"
        )
    click.echo(f"Report: {(output / run.REPORT_FILE).resolve()}")
    click.echo(RESEARCH_USE_NOTICE)
