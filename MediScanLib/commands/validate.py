"""`mediscan validate`: whether a model and its explanations hold, agree, and survive damage."""

from __future__ import annotations

from pathlib import Path

import click

from ..notice import RESEARCH_USE_NOTICE

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(epilog=RESEARCH_USE_NOTICE)
@click.option("--data", required=True, type=_FILE, metavar="MANIFEST", help="Manifest (CSV).")
@click.option(
    "--split",
    type=click.Choice(("test", "val")),
    default="test",
    show_default=True,
    help="Studies to ask about; those of train are never scored.",
)
@click.option("--boxes", type=_FILE, help="Readers' boxes (CSV): whether the maps lie on them.")
@click.option("--lesions", type=_FILE, help="Readers' masks (CSV), likewise.")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Name or folder of a model bundle; give it again to compare models. [mediscan-general]",
)
@click.option(
    "--methods",
    default="gradcam,gradcam++,layercam",
    show_default=True,
    help="Methods of explanation, joined by commas; the others are compared with the first. Also occlusion and "
    "integrated-gradients, which take long.",
)
@click.option(
    "--checks",
    default="faithfulness,robustness,randomization,stress",
    show_default=True,
    help="What is checked beside where the maps lie and how they agree; none for nothing.",
)
@click.option(
    "--cases",
    type=click.IntRange(min=1),
    help="Most cases of the split whose maps are looked at, evenly chosen. [all marked; 40 where nothing is marked]",
)
@click.option(
    "--stress-studies",
    type=click.IntRange(min=0),
    default=60,
    show_default=True,
    help="Most studies a source in the stress tests of the model; 0 for all.",
)
@click.option("--steps", type=click.IntRange(min=2), default=10, show_default=True, help="Of insertion and deletion.")
@click.option(
    "--random-orders",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="That insertion and deletion are compared with.",
)
@click.option(
    "--gallery", type=click.IntRange(min=0), default=24, show_default=True, help="Most cases in the gallery."
)
@click.option("--resamples", type=click.IntRange(min=1), default=1000, show_default=True, help="Of the bootstrap.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything that is drawn.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder.")
@click.pass_context
def validate(
    ctx: click.Context,
    data: Path,
    split: str,
    boxes: Path | None,
    lesions: Path | None,
    models: tuple[str, ...],
    methods: str,
    checks: str,
    cases: int | None,
    stress_studies: int,
    steps: int,
    random_orders: int,
    gallery: int,
    resamples: int,
    seed: int,
    device: str,
    output: Path,
) -> None:
    """Validate models and their explanations: report.html, validation.json and cases.csv.

    Where the maps lie beside readers' marks, whether the model leans on what they show, whether they stay under small
    changes and go with the weights, how methods and models agree, and how the model itself takes missing values and
    damaged images.

    Every finished piece is kept in OUTPUT: stopped, the same command goes on where it was. Exit codes: 0 all done,
    3 some pieces failed and are named in the report.
    """
    from tqdm import tqdm

    from ..prediction.predictor import Predictor
    from ..progress import CallbackProgress
    from ..report.tile import draw_tile
    from ..training.regions import MarkFiles
    from ..training.validating import run
    from ..training.validating.request import Request

    request = Request(
        data=data,
        output=output,
        split=split,
        marks=MarkFiles(boxes, lesions),
        methods=_names(methods),
        checks=() if checks.strip() == "none" else _names(checks),
        cases=cases,
        stress_studies=stress_studies,
        steps=steps,
        random_orders=random_orders,
        gallery=gallery,
        resamples=resamples,
        seed=seed,
    )
    request.check()  # before anything is loaded
    predictors = [Predictor.load(name, device) for name in models or ("mediscan-general",)]
    with tqdm(disable=None) as bar:

        def show(stage: str, done: int, total: int) -> None:
            if done == 0:  # each stage has a bar, and a rate, of its own
                bar.reset(total)
                bar.set_description(stage, refresh=False)
            bar.n = done
            bar.refresh()

        summary = run.validate(request, predictors, draw_tile, CallbackProgress(show))
    for row in summary.methods:
        if row.group == "all":
            shown = ", ".join(f"{name} {row.figures[name].value:.3f}" for name in _SHOWN if name in row.figures)
            click.echo(f"{row.method:22} {row.model:30} n={row.cases:<4} {shown}")
    click.echo(f"Report: {(output / run.REPORT_FILE).resolve()}")
    click.echo(RESEARCH_USE_NOTICE)
    if summary.failures:
        first = summary.failures[0]
        click.echo(
            f"{len(summary.failures)} pieces failed, the first: {first.what}: {first.message} "
            "Run the same command again to try them once more.",
            err=True,
        )
        ctx.exit(3)


_SHOWN = ("pointing game", "IoU", "relevance mass", "deletion gain", "insertion gain", "steadiness")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
