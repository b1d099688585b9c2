"""`mediscan reviews`: what readers said about predictions on this machine."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click

_MODEL = click.option("--model", metavar="NAME", help="Of this model only.")
_SINCE = click.option(
    "--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="From this day or time (UTC) on only."
)


@click.group()
def reviews() -> None:
    """List and export what readers said about predictions; nothing of it leaves this machine by itself."""


@reviews.command("list")
@_MODEL
@_SINCE
def list_reviews(model: str | None, since: datetime | None) -> None:
    """Print a line for each review, in the order in which they were made."""
    from ..report.reviews import ReviewStore

    store = ReviewStore()
    found = store.of(model=model, since=_utc(since))
    for review in found:
        said = "agrees" if review.agree else f"disagrees: {review.corrected_label or 'not told what else'}"
        severity = "" if review.corrected_severity is None else f", severity {review.corrected_severity:.2f}"
        reader = f" by {_line(review.reader)}" if review.reader else ""
        note = f"  # {_line(review.note)}" if review.note else ""
        click.echo(
            f"{review.reviewed_at:%Y-%m-%d %H:%M} UTC{reader}  {_line(review.input)}  "
            f"{review.model} {review.model_version}  {review.finding}: {_line(said)}{severity}{note}"
        )
    agreed = sum(review.agree for review in found)
    click.echo(f"{len(found)} reviews, {agreed} agree. They lie in {store.path}.", err=True)


@reviews.command("export")
@click.argument("file", type=click.Path(path_type=Path))
@_MODEL
@_SINCE
def export(file: Path, model: str | None, since: datetime | None) -> None:
    """Write the reviews to FILE: a table (.csv), or each with its whole prediction (.jsonl)."""
    from ..report.reviews import ReviewStore

    count = ReviewStore().export(file, model=model, since=_utc(since))
    click.echo(f"{file}: {count} reviews")


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=timezone.utc)


def _line(text: str) -> str:
    """Free text on one line, without what would steer a terminal."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
