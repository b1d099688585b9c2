"""`mediscan data`: put a data set into a manifest, look for what is wrong with it, and split it."""

from __future__ import annotations

import json
from pathlib import Path

import click

EXIT_PROBLEMS = 3

_KINDS = ("nih", "chexpert", "covidx", "mimic", "rsna", "mura", "folders", "dicom")
_PATH = click.Path(path_type=Path)


@click.group()
def data() -> None:
    """Import data sets into a manifest, check it, split it."""


@data.command("import")
@click.argument("kind", type=click.Choice(_KINDS))
@click.argument("root", type=_PATH)
@click.option("--output", required=True, type=_PATH, help="Manifest to write (CSV).")
@click.option("--boxes", type=_PATH, help="Boxes to write, where the set has any.  [default: boxes.csv beside it]")
@click.option(
    "--uncertain",
    type=click.Choice(("unknown", "ones", "zeros", "ignore")),
    default="unknown",
    show_default=True,
    help="What uncertain labels of chexpert and mimic become; `ignore` leaves the study out.",
)
@click.option(
    "--others",
    type=click.Choice(("skip", "negative")),
    default="skip",
    show_default=True,
    help="Studies with other findings than ours: left out, or kept as no_pneumonia.",
)
@click.option(
    "--label", "labels", multiple=True, metavar="CLASS=LABEL", help="Label of a class (folders, dicom); repeatable."
)
@click.option(
    "--patient-pattern", default="", metavar="REGEX", help="First group: the patient in file names (folders)."
)
@click.option("--source", default="", help="Name of the source in the manifest.  [default: the set's]")
def import_data(
    kind: str,
    root: Path,
    output: Path,
    boxes: Path | None,
    uncertain: str,
    others: str,
    labels: tuple[str, ...],
    patient_pattern: str,
    source: str,
) -> None:
    """Make a manifest from the set of KIND as distributed, in the folder ROOT (for `dicom`: the CSV file ROOT).

    How labels of several findings become one is told in the documentation of each adapter. Images are not copied.
    """
    from typing import get_args

    from ..training.adapters import ADAPTERS, Choices
    from ..training.adapters.entries import Others, Uncertain

    pairs = [label.partition("=") for label in labels]
    if bad := [label for label, pair in zip(labels, pairs, strict=True) if not (pair[0] and pair[2])]:
        raise click.UsageError(f"--label takes CLASS=LABEL, not {bad[0]!r}.")
    choices = Choices(
        uncertain=next(value for value in get_args(Uncertain) if value == uncertain),
        others=next(value for value in get_args(Others) if value == others),
        labels={name: label for name, _, label in pairs},
        source=source,
        patient_pattern=patient_pattern,
    )
    imported = ADAPTERS[kind](root, choices)
    boxes = boxes or output.with_name("boxes.csv")
    imported.save(output, boxes)
    click.echo(f"{output}: {len(imported.rows)} studies")
    if imported.boxes:
        click.echo(f"{boxes}: {len(imported.boxes)} boxes")
    for reason, count in imported.left_out.most_common():
        click.echo(f"Left out, {reason}: {count}")
    for note, count in imported.notes.most_common():
        click.echo(f"Note, {note}: {count}")
    if any(not row.get("split") for row in imported.rows):
        click.echo("Some studies have no split yet: make the splits with `mediscan data split`.")


@data.command()
@click.argument("manifest", type=_PATH)
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON.")
@click.option("--images/--no-images", default=True, help="Read all images, to find damaged ones and copies.")
def check(manifest: Path, as_json: bool, images: bool) -> None:
    """Name everything that is wrong with MANIFEST.

    Missing and damaged files, copies, leaking patients, balance, label conflicts, implausible values. Exit codes:
    0 fine, 3 problems found, 2 no manifest at all.
    """
    from ..training.checking import check_manifest

    with _Bar() as bar:
        report = check_manifest(manifest, images=images, progress=bar)
    text = json.dumps(report.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) if as_json else report.to_text()
    click.echo(text)
    if report.problems:
        raise SystemExit(EXIT_PROBLEMS)


@data.command()
@click.argument("manifest", type=_PATH)
@click.option("--output", required=True, type=_PATH, help="Manifest to write (CSV).")
@click.option("--folds", type=click.IntRange(min=2), help="Number of cross-validation folds, stored as `fold`.")
@click.option("--fractions", metavar="TRAIN,VAL,TEST", help="Shares of the splits, stored as `split`.")
@click.option("--keep-test", is_flag=True, help="Leave the studies that are in test there.")
@click.option("--together", is_flag=True, help="Read all images and keep copies, exact and near, in one split.")
@click.option("--seed", default=0, show_default=True, help="Of the shuffling.")
def split(
    manifest: Path,
    output: Path,
    folds: int | None,
    fractions: str | None,
    keep_test: bool,
    together: bool,
    seed: int,
) -> None:
    """Split MANIFEST by patient, every source and label in proportion, and write it with the splits.

    Without --folds and --fractions, 70 % go to train, 10 % to val and 20 % to test; with --keep-test, 10 % of what is
    outside test go to val and the rest to train.
    """
    if folds is not None and fractions is not None:
        raise click.UsageError("Give --folds or --fractions, not both.")
    from ..training.splitting import parse_fractions, split_manifest

    shares = None if folds is not None else parse_fractions(fractions or (".9,.1,0" if keep_test else ".7,.1,.2"))
    with _Bar() as bar:
        counts = split_manifest(
            manifest,
            output,
            folds=folds,
            fractions=shares,
            keep_test=keep_test,
            together=together,
            seed=seed,
            progress=bar,
        )
    for name, parts in counts.items():
        click.echo(f"{name:40} " + ", ".join(f"{part} {count}" for part, count in parts.items()))
    click.echo(f"Written to {output}.")


class _Bar:
    """A bar on standard error; none where that is no terminal."""

    def __init__(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(unit="image", disable=None, leave=False)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def report(self, stage: str, done: int, total: int) -> None:
        """Move the bar."""
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def cancelled(self) -> bool:
        """Never; Ctrl-C interrupts."""
        return False
