"""The command line. Torch and everything heavy are imported inside the commands: `--help` answers at once."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from . import __version__
from .commands.data import data
from .commands.evaluate import evaluate
from .commands.models import models
from .commands.pacs import listen, poll, queue
from .commands.reviews import reviews
from .commands.serve import serve
from .commands.train import train
from .commands.validate import validate
from .commands.what_if import what_if
from .errors import MediScanError, WriteError
from .notice import RESEARCH_USE_NOTICE
from .prediction.explanations.methods import METHODS

if TYPE_CHECKING:
    from .commands.clinical_output import ClinicalOutput
    from .config import InferenceConfig
    from .prediction.batch import Outcome
    from .prediction.predictor import Predictor
    from .prediction.remote_predictor import RemotePredictor
    from .prediction.result import Prediction
    from .report.files import ResultFile
    from .report.html import HtmlPage
    from .study.image import MedicalImage
    from .study.record_files import ClinicalRecords

EXIT_SOME_FAILED = 3
EXIT_WRONG_USE = 2
EXIT_INTERRUPTED = 130

F = TypeVar("F", bound=Callable[..., Any])


class _Failure(click.ClickException):
    """A MediScanError on its way to the terminal: what is wrong and what to do, without a traceback."""

    exit_code = EXIT_WRONG_USE


class _Group(click.Group):
    """Turns errors that MediScan raises on purpose, and those of the world outside, into messages and exit codes."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except MediScanError as error:
            raise _Failure(str(error)) from error
        except BrokenPipeError:
            raise  # click ends in silence: whoever read the results has seen enough
        except OSError as error:
            raise click.ClickException(f"Cannot write: {error}. What was done before is kept.") from error
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            ctx.exit(EXIT_INTERRUPTED)


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
@click.argument("inputs", nargs=-1, required=True, type=click.Path(readable=False), metavar="INPUT...")
@click.option(
    "--clinical",
    metavar="JSON|FILE",
    help='Clinical values: \'{"age_years": 63, "sex": "M"}\', a .json file, a FHIR Bundle in one too, or a .csv file '
    'with a column "input".',
)
@_model_options
@click.option("--slice", "slice_", default="all", show_default=True, metavar="N|all", help="Slice, counted from 0.")
@click.option("--series", metavar="UID", help="Which DICOM series of a folder that holds several.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help=".json, .jsonl or .csv file, or .html page for people; without it, JSON lines are printed.",
)
@click.option("--overlay", type=click.Path(path_type=Path), help="Folder for one picture an input.")
@click.option("--dicom-output", type=click.Path(path_type=Path), help="Folder for DICOM objects, a folder an input.")
@click.option("--deidentify", is_flag=True, help="Without what identifies the patient; for --dicom-output.")
@click.option("--key-file", type=click.Path(path_type=Path), help="Key of the pseudonyms; made where it is missing.")
@click.option("--fhir-output", type=click.Path(path_type=Path), help="Folder for a FHIR R4 Bundle an input.")
@click.option("--explain", type=click.Choice(METHODS), help="How heat maps are made; all but gradcam take longer.")
@click.option("--against", metavar="FINDING", help="Heat maps show what speaks for the others and against this one.")
@click.option("--check-map", is_flag=True, help="Try whether the model leans on what the map shows; takes long.")
@click.option("--resume", is_flag=True, help="Go on from --output: only inputs without a result there are done.")
@click.option("--server", metavar="URL", help="Let a MediScan server predict; its models count, and its device.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the token for --server.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="Certificates (PEM) to trust for --server.")
@click.option("--allow-http", is_flag=True, help="Send images unencrypted to a --server on another machine.")
@click.pass_context
def predict(
    ctx: click.Context,
    inputs: tuple[str, ...],
    clinical: str | None,
    model: str,
    device: str,
    config: Path | None,
    slice_: str,
    series: str | None,
    output: Path | None,
    overlay: Path | None,
    dicom_output: Path | None,
    deidentify: bool,
    key_file: Path | None,
    fhir_output: Path | None,
    explain: str | None,
    against: str | None,
    check_map: bool,
    resume: bool,
    server: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    allow_http: bool,
) -> None:
    """Predict images, DICOM series folders, or folders of images.

    An input that fails becomes an object with its error, and the others go on. Exit codes: 0 all done, 3 some inputs
    failed, 2 wrong use, 1 the results could not be written, 130 interrupted.
    """
    slice_index = _slice_index(slice_)
    if "" in inputs:
        raise click.UsageError("An INPUT is empty.")
    if resume and output is None:
        raise click.UsageError("--resume goes on from a file: give --output.")
    if resume and output is not None and _is_page(output):
        raise click.UsageError("--resume goes on from .json, .jsonl or .csv files: a page is made anew.")
    if output is not None and clinical is not None and _absolute(output) == _absolute(clinical):
        raise click.UsageError("--output would replace the file of --clinical: give another name.")
    if server is None and (token_file or ca_file or allow_http):
        raise click.UsageError("--token-file, --ca-file and --allow-http belong to --server.")
    if server is not None and device != "auto":
        raise click.UsageError("--device is for the server to choose: leave it out.")
    if dicom_output is None and (deidentify or key_file):
        raise click.UsageError("--deidentify and --key-file belong to --dicom-output.")
    if key_file is not None and not deidentify:
        raise click.UsageError("--key-file belongs to --deidentify.")
    if deidentify and fhir_output is not None:
        raise click.UsageError("--fhir-output names the patient, which --deidentify is to avoid: leave one out.")
    from .commands.clinical_output import DicomOutput, FhirOutput
    from .report.names import picture_paths
    from .study.record_files import ClinicalRecords, read_records

    records = read_records(clinical) if clinical is not None else ClinicalRecords()
    for warning in records.warnings:
        click.echo(f"Clinical values: {warning}", err=True)
    jobs = _jobs(
        [Path(name) for name in inputs], series, [place for place in (overlay, dicom_output, fhir_output) if place]
    )
    found = [job for job in jobs if isinstance(job, Path)]
    _warn_of_unmatched(records, found)
    pictures = {} if overlay is None else picture_paths(found, overlay)
    filed: list[ClinicalOutput] = []
    if dicom_output is not None:
        filed.append(DicomOutput(found, dicom_output, series, deidentify=deidentify, key_file=key_file))
    if fhir_output is not None:
        filed.append(FhirOutput(found, fhir_output, series))
    asked = {"explanation": explain, "explanation_against": against, "faithfulness": check_map or None}
    predictor: Predictor | RemotePredictor
    if server is not None:
        predictor = _connect(server, token_file, ca_file, allow_http, model, _inference(config, asked))
    else:
        predictor = _load(model, device, _inference(config, asked))
    if overlay is not None:
        _check_overlay(overlay, predictor)
    with _Results(output, predictor, resume=resume) as results:
        todo = [job for job in jobs if not (isinstance(job, Path) and results.has(job))]
        try:
            _run(predictor, todo, records, slice_index, series, results, pictures, filed)
        except KeyboardInterrupt:
            hint = "" if output is None or _is_page(output) else " Go on with --resume."
            click.echo(f"Stopped: {results.succeeded} of {len(todo)} inputs done.{hint}", err=True)
            ctx.exit(EXIT_INTERRUPTED)
    earlier = f", {results.earlier} from before" if results.earlier else ""
    without = "".join(f", {output.failed} without {output.what}" for output in filed if output.failed)
    click.echo(f"{results.succeeded} done, {results.failed} failed{without}{earlier}. {RESEARCH_USE_NOTICE}", err=True)
    if results.failed or any(output.failed for output in filed):
        ctx.exit(EXIT_SOME_FAILED)


@main.command(epilog=RESEARCH_USE_NOTICE)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True, help="Folder."
)
@_model_options
def demo(output: Path, model: str, device: str, config: Path | None) -> None:
    """Run on a phantom that is drawn by code: no patient, and what is found on it means nothing."""
    predictor = _load(model, device, _inference(config))
    from .prediction.sentences import trust_sentences
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
    for reason in prediction.certainty.reasons:
        click.echo(f"For a human: {reason.message}")
    for sentence in trust_sentences(prediction):
        click.echo(f"            {sentence}")
    click.echo(f"Picture:    {picture.resolve()}")
    click.echo(f"Prediction: {text.resolve()}")
    click.echo(RESEARCH_USE_NOTICE)


class _Results:
    """Where outcomes go: a result file, a page, or lines on standard output; counts them."""

    def __init__(self, output: Path | None, predictor: Predictor | RemotePredictor, *, resume: bool) -> None:
        self._file: ResultFile | None = None
        self._page: HtmlPage | None = None
        if output is not None and _is_page(output):
            from .report.html import HtmlPage

            self._page = HtmlPage(output)
        elif output is not None:
            from .report.files import ResultFile

            if output.suffix.lower() not in (".json", ".jsonl", ".csv"):
                raise _Failure(
                    f"{output}: results are written as .json, .jsonl or .csv, and as an .html page. Give a name with "
                    "such an ending."
                )
            labels, sha256 = _identity(predictor)
            self._file = ResultFile(output, labels, resume=resume, model_sha256=sha256)
        self._done = {_absolute(name) for name in (self._file.done if self._file else ())}
        self.earlier = len(self._done)
        self.succeeded = 0
        self.failed = 0

    def __enter__(self) -> _Results:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
        if self._page:
            try:
                self._page.close()
            except WriteError as error:
                raise click.ClickException(str(error)) from error

    def has(self, path: Path) -> bool:
        """True where an earlier run did this input."""
        from .prediction.batch import shown

        return _absolute(shown(path)) in self._done

    def succeed(self, prediction: Prediction, image: MedicalImage) -> None:
        self.succeeded += 1
        if self._page:
            self._page.add(prediction, _heat_pictures(image, prediction))
        else:
            self._write(prediction.to_dict())

    def fail(self, source: str, code: str, message: str) -> None:
        from .report.files import error_entry

        self.failed += 1
        if self._page:
            self._page.add_failure(source, message)
        else:
            self._write(error_entry(source, code, message))

    def _write(self, entry: dict[str, Any]) -> None:
        from tqdm import tqdm

        from .report.files import json_line

        if self._file:
            self._file.append(entry)
            return
        with tqdm.external_write_mode():  # takes a bar on the same terminal out of the way
            click.echo(json_line(entry))


def _jobs(inputs: Sequence[Path], series: str | None, places: Sequence[Path]) -> list[Path | Outcome]:
    """What there is to do, each once and in the order of the inputs: a path to predict, or what was wrong with one."""
    from .prediction.batch import Outcome, shown
    from .study.finding import find_images

    jobs: dict[str, Path | Outcome] = {}
    for path in inputs:
        try:
            below = [path] if series and path.is_dir() else find_images(path)
        except MediScanError as error:
            jobs[_absolute(path)] = Outcome(shown(path), error_code=error.code, error_message=str(error))
            continue
        if not below:
            message = f"{path}: the folder holds no image. Give a file, a DICOM series folder or a folder of images."
            jobs[_absolute(path)] = Outcome(shown(path), error_code="empty", error_message=message)
        # pictures and objects of an earlier run that went into the folder of the images are no input
        own = tuple(_absolute(place) + os.sep for place in places if _absolute(place) != _absolute(path))
        for image in below:
            if image == path or not _absolute(image).startswith(own):
                jobs.setdefault(_absolute(image), image)
    return list(jobs.values())


def _warn_of_unmatched(records: ClinicalRecords, found: Sequence[Path]) -> None:
    unmatched = sorted(set(records.by_input) - {key for path in found for key in records.keys_of(path)})
    if unmatched:
        more = f" and {len(unmatched) - 5} more" if len(unmatched) > 5 else ""
        names = ", ".join(unmatched[:5]) + more
        click.echo(f"Warning: clinical values for inputs that are not there: {names}.", err=True)


def _check_overlay(folder: Path, predictor: Predictor | RemotePredictor) -> None:
    """Better now than after the first input."""
    if not predictor.settings.explainability:
        raise click.UsageError("--overlay draws heat maps, which explainability: false in --config switches off.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _Failure(f"{folder}: is no folder for pictures ({error.strerror}). Choose another place.") from error


def _run(
    predictor: Predictor | RemotePredictor,
    todo: Sequence[Path | Outcome],
    records: ClinicalRecords,
    slice_index: int | None,
    series: str | None,
    results: _Results,
    pictures: Mapping[Path, Path],
    filed: Sequence[ClinicalOutput],
) -> None:
    from tqdm import tqdm

    from .prediction.batch import predict_inputs

    paths = [job for job in todo if isinstance(job, Path)]
    outcomes = predict_inputs(predictor, paths, records.of, slice_index=slice_index, series=series)
    for job in tqdm(todo, unit="input", disable=None):  # None: no bar where standard error is no terminal
        if isinstance(job, Path):
            outcome = next(outcomes)
            if outcome.prediction is not None:
                for output in filed:  # first: what has a result is not tried again by --resume
                    output.write(job, outcome)
            _store(outcome, results, pictures.get(job))
        else:
            _store(job, results, None)


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
    results.succeed(prediction, outcome.image)


def _heat_pictures(image: MedicalImage, prediction: Prediction) -> dict[str, bytes]:
    """Pictures for a page: of the likeliest finding, and of all that are present."""
    from .report.picture import draw_prediction

    if prediction.maps is None:
        return {}
    present = [finding.label for finding in prediction.findings if finding.decision == "present"]
    pictures = {}
    for label in dict.fromkeys((prediction.top.label, *present)):
        stream = io.BytesIO()
        draw_prediction(image, prediction, label).save(stream, format="PNG", compress_level=1)
        pictures[label] = stream.getvalue()
    return pictures


def _inference(config: Path | None, asked: Mapping[str, str | bool | None] = {}) -> InferenceConfig:
    """The settings of a file, or the defaults, and what is asked for on the command line."""
    from .config import load_config

    settings = load_config(config).inference
    return settings.model_copy(update={name: value for name, value in asked.items() if value is not None})


def _load(model: str, device: str, settings: InferenceConfig) -> Predictor:
    from .prediction.predictor import Predictor

    return Predictor.load(model, device, settings)


def _connect(
    url: str, token_file: Path | None, ca_file: Path | None, allow_http: bool, model: str, settings: InferenceConfig
) -> RemotePredictor:
    from .prediction.remote import read_token
    from .prediction.remote_predictor import RemotePredictor
    from .prediction.server_client import ServerClient

    token = None if token_file is None else read_token(token_file)
    client = ServerClient(url, token, ca_file=ca_file, allow_http=allow_http)
    return RemotePredictor(client, model, settings)


def _identity(predictor: Predictor | RemotePredictor) -> tuple[Sequence[str], str]:
    """Labels and hash of the model."""
    from .prediction.remote_predictor import RemotePredictor

    if isinstance(predictor, RemotePredictor):
        return predictor.model.labels, predictor.model.sha256
    return predictor.bundle.card.labels, predictor.bundle.sha256


def _slice_index(text: str) -> int | None:
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise click.UsageError(f"--slice takes a number counted from 0, or all, not {text!r}.")


def _is_page(path: Path) -> bool:
    return path.suffix.lower() in (".html", ".htm")


def _absolute(path: str | Path) -> str:
    """One spelling for every way to name the same place, without following links."""
    return os.path.abspath(path)  # noqa: PTH100


for command in (models, data, train, evaluate, validate, reviews, what_if, serve, listen, poll, queue):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
