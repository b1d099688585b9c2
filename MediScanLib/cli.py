"""The command line. Torch and everything heavy are imported inside the commands: `--help` answers at once."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__
from .errors import MediScanError
from .notice import RESEARCH_USE_NOTICE

if TYPE_CHECKING:
    from .network.bundle import Bundle
    from .prediction.batch import Outcome
    from .prediction.predictor import Predictor

EXIT_SOME_FAILED = 3
EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130

F = TypeVar("F", bound=Callable[..., Any])


class _Failure(click.ClickException):
    """A MediScanError on its way to the terminal: what is wrong and what to do, without a traceback."""

    exit_code = EXIT_WRONG_USE


class _Group(click.Group):
    """Turns errors that MediScan raises on purpose into messages."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MediScanError as error:
            raise _Failure(str(error)) from error


@click.group(cls=_Group, epilog=RESEARCH_USE_NOTICE, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mediscan", message=f"%(prog)s %(version)s\n{RESEARCH_USE_NOTICE}")
@click.option("--debug", is_flag=True, help="Tell what happens inside, with tracebacks.")
def main(debug: bool) -> None:
    """Read a medical image with what is known of the patient: findings, severity, heat maps and certainty."""
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    if debug:
        for noisy in ("PIL", "matplotlib", "pydicom"):
            logging.getLogger(noisy).setLevel(logging.INFO)


def _model_options(function: F) -> F:
    for option in (
        click.option(
            "--model", default="mediscan-general", show_default=True, help="Name or folder of a model bundle."
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
        click.option(
            "--config", type=click.Path(path_type=Path), help="YAML file; its section `inference` is used here."
        ),
    ):
        function = option(function)
    return function


@main.command(epilog=RESEARCH_USE_NOTICE)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option(
    "--clinical",
    metavar="JSON|FILE",
    help='Clinical values: \'{"age_years": 63, "sex": "M"}\', a .json file, or a .csv file with a column "input".',
)
@_model_options
@click.option("--slice", "slice_", default="all", show_default=True, metavar="N|all", help="Slice, counted from 0.")
@click.option("--series", metavar="UID", help="Which DICOM series of a folder that holds several.")
@click.option(
    "--output", type=click.Path(path_type=Path), help=".json, .jsonl or .csv file; without it, JSON lines are printed."
)
@click.option("--overlay", type=click.Path(path_type=Path), help="Folder for one picture an input.")
@click.option("--resume", is_flag=True, help="Go on from --output: only inputs without a result there are done.")
@click.pass_context
def predict(
    ctx: click.Context,
    inputs: tuple[Path, ...],
    clinical: str | None,
    model: str,
    device: str,
    config: Path | None,
    slice_: str,
    series: str | None,
    output: Path | None,
    overlay: Path | None,
    resume: bool,
) -> None:
    """Predict images, DICOM series folders, or folders of images.

    An input that fails becomes an object with its error, and the others go on. Exit codes: 0 all done, 3 some inputs
    failed, 2 wrong use, 130 interrupted.
    """
    slice_index = _slice_index(slice_)
    if resume and output is None:
        raise click.UsageError("--resume goes on from a file: give --output.")
    from .study.finding import find_images
    from .study.record_files import ClinicalRecords, read_records

    records = read_records(clinical) if clinical is not None else ClinicalRecords()
    found: list[Path] = []
    failures: list[tuple[str, str, str]] = []
    for path in dict.fromkeys(inputs):
        try:
            below = [path] if series and path.is_dir() else find_images(path)
        except MediScanError as error:
            failures.append((str(path), error.code, str(error)))
            continue
        if not below:
            message = f"{path}: the folder holds no image. Give a file, a DICOM series folder or a folder of images."
            failures.append((str(path), "empty", message))
        found += below
    found = list(dict.fromkeys(found))
    unmatched = sorted(set(records.by_input) - {key for path in found for key in records.keys_of(path)})
    if unmatched:
        click.echo(f"Warning: clinical values for inputs that are not there: {', '.join(unmatched[:5])}", err=True)

    predictor = _load(model, device, config)
    with _Results(output, predictor.bundle.card.labels, resume=resume) as results:
        for failure in failures:
            results.fail(*failure)
        todo = [path for path in found if str(path) not in results.done]
        pictures = _picture_paths(found, overlay)
        try:
            _run(predictor, todo, records.of, slice_index, series, results, pictures)
        except KeyboardInterrupt:
            hint = " Go on with --resume." if output is not None else ""
            click.echo(f"Stopped: {results.succeeded} of {len(todo)} inputs done.{hint}", err=True)
            ctx.exit(EXIT_INTERRUPTED)
        except OSError as error:
            raise click.ClickException(f"Cannot write the results: {error}. What was done before is kept.") from error
    earlier = f", {len(results.done)} from before" if results.done else ""
    click.echo(f"{results.succeeded} done, {results.failed} failed{earlier}. {RESEARCH_USE_NOTICE}", err=True)
    if results.failed:
        ctx.exit(EXIT_SOME_FAILED)


@main.group()
def models() -> None:
    """List, show and verify model bundles."""


@models.command("list")
def list_models() -> None:
    """Names of the models that can be used."""
    from .network.bundle import available_bundles, search_path

    bundles = available_bundles()
    for bundle in bundles:
        click.echo(f"{bundle.name} {bundle.version}  {bundle.card.title}  ({bundle.folder})")
    if not bundles:
        click.echo(f"No model found in {', '.join(str(folder) for folder in search_path())}.", err=True)
        raise SystemExit(EXIT_SOME_FAILED)


@models.command("show")
@click.argument("name", default="mediscan-general")
@click.option("--json", "as_json", is_flag=True, help="The whole card as JSON.")
def show_model(name: str, as_json: bool) -> None:
    """The card of a model: what it is for, what it was trained on, how well it did."""
    from .network.bundle import load_bundle

    bundle = load_bundle(name)
    click.echo(bundle.card.model_dump_json(indent=2) if as_json else _card_text(bundle))


@models.command("verify")
@click.argument("names", nargs=-1)
def verify_models(names: tuple[str, ...]) -> None:
    """Check the card, the hashes and the weights of all models, or of those named."""
    from .network.bundle import bundle_folders, load_bundle

    bad = 0
    for name in names or tuple(str(folder) for folder in bundle_folders()):
        try:
            bundle = load_bundle(name)
            bundle.load_network()
            click.echo(f"ok      {bundle.name} {bundle.version} {bundle.sha256}")
        except MediScanError as error:
            bad += 1
            click.echo(f"damaged {name}: {error}")
    if bad:
        raise SystemExit(EXIT_SOME_FAILED)


@main.command(epilog=RESEARCH_USE_NOTICE)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True, help="Folder."
)
@_model_options
def demo(output: Path, model: str, device: str, config: Path | None) -> None:
    """Run on a phantom that is drawn by code: no patient, and what is found on it means nothing."""
    predictor = _load(model, device, config)
    from .report.picture import draw_prediction, save_picture
    from .study.phantom import make_phantom
    from .study.record import ClinicalRecord

    phantom = make_phantom()
    prediction = predictor(phantom, ClinicalRecord(age_years=63, sex="M", temperature_c=38.4))
    output.mkdir(parents=True, exist_ok=True)
    picture, text = output / "phantom.png", output / "phantom.json"
    save_picture(draw_prediction(phantom, prediction), picture)
    text.write_text(prediction.to_json(indent=2) + "\n", encoding="utf-8")
    click.echo(f"Study:      {phantom.source}")
    for finding in prediction.findings:
        click.echo(f"            {finding.label:10} {finding.probability:.2f}  {finding.decision}")
    click.echo(f"Picture:    {picture.resolve()}")
    click.echo(f"Prediction: {text.resolve()}")
    click.echo(RESEARCH_USE_NOTICE)


class _Results:
    """Where outcomes go: a result file or lines on standard output; counts them."""

    def __init__(self, output: Path | None, labels: Sequence[str], *, resume: bool) -> None:
        from .report.files import ResultFile

        self._file = None if output is None else ResultFile(output, labels, resume=resume)
        self.done = self._file.done if self._file else frozenset()
        self.succeeded = 0
        self.failed = 0

    def __enter__(self) -> _Results:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()

    def succeed(self, entry: dict[str, Any]) -> None:
        self.succeeded += 1
        self._write(entry)

    def fail(self, source: str, code: str, message: str) -> None:
        from .report.files import error_entry

        self.failed += 1
        self._write(error_entry(source, code, message))

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file:
            self._file.append(entry)
        else:
            click.echo(json.dumps(entry, ensure_ascii=False, allow_nan=False))


def _run(
    predictor: Predictor,
    todo: list[Path],
    record_of: Callable[[Path], Any],
    slice_index: int | None,
    series: str | None,
    results: _Results,
    pictures: dict[Path, Path],
) -> None:
    from tqdm import tqdm

    from .prediction.batch import predict_inputs

    outcomes = predict_inputs(predictor, todo, record_of, slice_index=slice_index, series=series)
    # disable=None: no bar where standard error is not a terminal
    for path, outcome in zip(todo, tqdm(outcomes, total=len(todo), unit="input", disable=None), strict=True):
        _store(outcome, results, pictures.get(path))


def _store(outcome: Outcome, results: _Results, picture: Path | None) -> None:
    if outcome.prediction is None or outcome.image is None:
        results.fail(outcome.source, outcome.error_code or "internal", outcome.error_message or "")
        return
    prediction = outcome.prediction
    if picture is not None and prediction.maps is not None:
        from .report.picture import draw_prediction, save_picture

        save_picture(draw_prediction(outcome.image, prediction), picture)
        label = prediction.top.label
        prediction.heat_maps = [
            heat_map.model_copy(update={"file": str(picture)}) if heat_map.label == label else heat_map
            for heat_map in prediction.heat_maps
        ]
    results.succeed(prediction.to_dict())


def _load(model: str, device: str, config: Path | None) -> Predictor:
    from .config import load_config
    from .prediction.predictor import Predictor

    return Predictor.load(model, device, load_config(config).inference)


def _slice_index(text: str) -> int | None:
    if text == "all":
        return None
    if text.isdigit():
        return int(text)
    raise click.UsageError(f"--slice takes a number counted from 0, or all, not {text!r}.")


def _picture_paths(inputs: Sequence[Path], folder: Path | None) -> dict[Path, Path]:
    """One picture an input: its name, with its ending or its folder where two would collide."""
    if folder is None:
        return {}
    paths: dict[Path, Path] = {}
    names: dict[str, int] = {}
    for path in inputs:
        names[path.stem.lower()] = names.get(path.stem.lower(), 0) + 1
    taken: set[str] = set()
    for path in inputs:
        name = path.stem if names[path.stem.lower()] == 1 else path.name
        number = 2
        chosen = name
        while chosen.lower() in taken:
            chosen, number = f"{name}-{number}", number + 1
        taken.add(chosen.lower())
        paths[path] = folder / f"{chosen}.png"
    return paths


def _card_text(bundle: Bundle) -> str:
    card = bundle.card
    lines = [
        f"{card.name} {card.version}: {card.title}",
        card.description,
        "",
        f"Findings:    {', '.join(card.labels)}",
        f"Network:     {card.network.backbone}, {card.network.fusion} fusion, {card.network.spatial_dims}D, "
        f"input {' x '.join(str(size) for size in card.input.size)}",
        f"Trained on:  {', '.join(card.input.modalities)} of {', '.join(card.input.body_parts)}",
        f"Calibrated:  {card.calibration.fitted_on if card.calibration else 'no'}",
        f"Weights:     {card.weights_licence}",
        f"SHA-256:     {bundle.sha256}",
        "",
        "Operating points:",
        *(f"  {label:10} {t.value:.3f}  {t.operating_point}" for label, t in card.thresholds.items()),
        "",
        "Figures (95 % interval), each within its own source:",
    ]
    for metric in card.metrics:
        interval = "" if metric.low is None else f" ({metric.low:.3f} to {metric.high:.3f})"
        lines.append(
            f"  {metric.split:6} {metric.source:14} {metric.task:30} n={metric.studies:<4} "
            f"{metric.name}: {metric.value:.3f}{interval}"
        )
    lines += ["", "Mind:", *(f"  - {caution}" for caution in card.cautions), "", RESEARCH_USE_NOTICE]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
