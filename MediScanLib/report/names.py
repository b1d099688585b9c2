"""Names of the pictures and folders of a run: one an input, no two alike, none that would replace an input."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError

_LONGEST_BYTES = 200
"""File systems take 255 bytes a name; the ending, a number and the scratch name of a write come on top."""


def picture_paths(inputs: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The picture of each input: its name, with its ending where two would collide, and a number where they still do.

    Args:
        inputs: Files and folders.
        folder: Where the pictures go.

    Raises:
        UsageError: A picture would replace an input.
    """
    return _paths(inputs, folder, ".png", "picture")


def result_folders(inputs: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """A folder for each input, named as `picture_paths` names pictures.

    Args:
        inputs: Files and folders.
        folder: Where the folders go.

    Raises:
        UsageError: A folder would stand where an input is.
    """
    return _paths(inputs, folder, "", "folder")


def bundle_paths(inputs: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The FHIR Bundle of each input, named as `picture_paths` names pictures.

    Args:
        inputs: Files and folders.
        folder: Where the Bundles go.

    Raises:
        UsageError: A Bundle would replace an input.
    """
    return _paths(inputs, folder, ".fhir.json", "Bundle")


def _paths(inputs: Sequence[Path], folder: Path, ending: str, what: str) -> dict[Path, Path]:
    full_names = [_full_name(path) for path in inputs]
    stems = Counter(Path(name).stem.lower() for name in full_names)
    originals = {os.path.realpath(path) for path in inputs}
    taken: set[str] = set()
    paths: dict[Path, Path] = {}
    for path, name in zip(inputs, full_names, strict=True):
        stem = Path(name).stem
        wanted = _shortened(stem if stems[stem.lower()] == 1 else name)
        chosen, number = wanted, 2
        while chosen.lower() in taken:
            chosen, number = f"{wanted}-{number}", number + 1
        taken.add(chosen.lower())
        paths[path] = folder / f"{chosen}{ending}"
        if os.path.realpath(paths[path]) in originals:
            raise UsageError(f"{paths[path]}: the {what} would replace an input. Choose another folder for {what}s.")
    return paths


def _full_name(path: Path) -> str:
    """The last part, also of "." and "..", which name a folder without saying how it is called."""
    return Path(os.path.abspath(path)).name or "image"  # noqa: PTH100 (follows no links)


def _shortened(name: str) -> str:
    return os.fsencode(name)[:_LONGEST_BYTES].decode("utf-8", "ignore")
