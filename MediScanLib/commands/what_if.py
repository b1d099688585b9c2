"""`mediscan what-if`: what the model would say if a clinical value were another."""

from __future__ import annotations

from pathlib import Path

import click

from ..notice import RESEARCH_USE_NOTICE


@click.command("what-if", epilog=RESEARCH_USE_NOTICE)
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--clinical",
    metavar="JSON|FILE",
    help='Clinical values: \'{"age_years": 63, "sex": "M"}\', a .json file, or a .csv file with a column "input".',
)
@click.option("--field", "fields", multiple=True, metavar="NAME", help="Clinical field; may be given several times.")
@click.option("--model", default="mediscan-general", show_default=True, help="Name or folder of a model bundle.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--slice", "slice_", type=click.IntRange(min=0), help="Slice, counted from 0. [all]")
@click.option("--series", metavar="UID", help="Which DICOM series of a folder that holds several.")
@click.option("--points", type=click.IntRange(min=2, max=1000), help="Values within the usual range, at most. [16]")
@click.option(
    "--output", type=click.Path(path_type=Path), help="File for the curves: .csv, or a picture as .png (matplotlib)."
)
def what_if(
    image: Path,
    clinical: str | None,
    fields: tuple[str, ...],
    model: str,
    device: str,
    slice_: int | None,
    series: str | None,
    points: int | None,
    output: Path | None,
) -> None:
    """Try other clinical values on one IMAGE, a DICOM series folder or a volume.

    For every --field, all that the model has learned where none is given, the probability of each finding over the
    values that the field can have, all others staying as they are. "*" marks what is known of the patient, "~" values
    that hardly any training study had.
    """
    from ..report.what_if import check_curve_file, curve_text, write_curves

    if output is not None:
        check_curve_file(output)
    from ..config import InferenceConfig
    from ..prediction.batch import shown
    from ..prediction.predictor import Predictor
    from ..prediction.what_if_curve import POINTS, what_if_curves
    from ..study.reading import read_image
    from ..study.record_files import ClinicalRecords, read_records

    records = read_records(clinical) if clinical is not None else ClinicalRecords()
    study = read_image(image, series=series if image.is_dir() else None, name=shown(image))
    predictor = Predictor.load(model, device, InferenceConfig(explainability=False))
    learned = [name for name, known in predictor.bundle.card.clinical.items() if known.known_fraction > 0]
    curves = what_if_curves(
        predictor,
        study,
        records.of(image),
        list(dict.fromkeys(fields)) or learned,
        slices=None if slice_ is None else (slice_,),
        points=points or POINTS,
    )
    click.echo("\n\n".join(curve_text(curve) for curve in curves))
    if output is not None:
        write_curves(output, curves)
        click.echo(f"Curves: {output.resolve()}", err=True)
    click.echo(RESEARCH_USE_NOTICE, err=True)
