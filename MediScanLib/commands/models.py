"""`mediscan models`: what can be used, what is in it, and models that a user adds, packs and removes."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import click

EXIT_DAMAGED = 3


@click.group()
def models() -> None:
    """List, show, verify, add, remove and pack model bundles."""


@models.command("list")
def list_models() -> None:
    """Names of the models that can be used."""
    from ..network.bundle import available_bundles

    bundles = available_bundles()
    for bundle in bundles:
        click.echo(f"{bundle.name} {bundle.version}  {bundle.card.title}  ({bundle.folder})")
    if not bundles:
        _no_model()


@models.command("show")
@click.argument("name", default="mediscan-general")
@click.option("--json", "as_json", is_flag=True, help="The whole card as JSON.")
def show_model(name: str, as_json: bool) -> None:
    """The card of a model: what it is for, what it was trained on, how well it did."""
    from ..network.bundle import load_bundle
    from ..report.card_text import card_text

    bundle = load_bundle(name)
    click.echo(bundle.card.model_dump_json(indent=2) if as_json else card_text(bundle))


@models.command("verify")
@click.argument("names", nargs=-1)
def verify(names: tuple[str, ...]) -> None:
    """Check the card, the hashes and the weights of all models, or of those named."""
    from ..network.installing import verify_models

    damaged = checked = 0
    for model in verify_models(names):
        checked += 1
        if model.bundle is not None:
            click.echo(f"ok      {model.bundle.name} {model.bundle.version} {model.bundle.sha256}")
        else:
            damaged += 1
            click.echo(f"damaged {model.error}")
    if not checked:
        _no_model()
    if damaged:
        raise SystemExit(EXIT_DAMAGED)


@models.command("add")
@click.argument("source")
@click.option("--sha256", metavar="HEX", help="SHA-256 of the .zip file; an address needs it.")
@click.option("--timeout", default=30.0, show_default=True, help="Longest silence of a server, in seconds.")
def add(source: str, sha256: str | None, timeout: float) -> None:
    """Install a model for you: SOURCE is the folder of a bundle, its .zip file, or the http(s) address of one.

    It is checked first: hashes, card, and whether the weights fit. A model of the same name is replaced once the new
    one is complete.
    """
    from tqdm import tqdm

    from ..network.installing import add_model
    from ..progress import CallbackProgress

    with tqdm(unit="B", unit_scale=True, disable=None, leave=False) as bar:

        def show(stage: str, done: int, total: int) -> None:
            bar.set_description(stage, refresh=False)
            bar.total, bar.n = total or None, done
            bar.refresh()

        bundle = add_model(source, sha256, CallbackProgress(show), timeout_s=timeout)
    click.echo(f"{bundle.name} {bundle.version} is installed in {bundle.folder}.")
    click.echo(f"Weights: {bundle.card.weights_licence}")


@models.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Delete a model that you have added; those that came with MediScan stay."""
    from ..network.installing import remove_model

    remove_model(name)
    click.echo(f"{name} is removed.")


@models.command("export")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
def export(name: str, file: Path) -> None:
    """Pack the model NAME as FILE.zip for others, and print the SHA-256 that they need."""
    from ..network.installing import export_model

    digest = export_model(name, file)
    click.echo(f"{file}: SHA-256 {digest}")


def _no_model() -> NoReturn:
    from ..network.bundle import search_path

    click.echo(f"No model found in {', '.join(str(folder) for folder in search_path())}.", err=True)
    raise SystemExit(EXIT_DAMAGED)
