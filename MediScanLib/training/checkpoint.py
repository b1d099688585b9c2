"""Checkpoints: everything that training needs to go on as if it had never stopped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, WriteError
from ..writing import atomic_write

FORMAT = 1


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write tensors and plain values, so that at any moment either the old or the complete new file is there.

    Raises:
        WriteError: The disk is full or the folder cannot be written; the old file is untouched.
    """
    with atomic_write(path) as stream:
        try:
            torch.save({"format": FORMAT, **state}, stream)
        except RuntimeError as error:  # torch reports a full disk so
            raise OSError(str(error)) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in the file is executed.

    Raises:
        CheckpointError: The file is missing, damaged, or no checkpoint.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint. A training run keeps it as last.pt in its folder.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader raises half a dozen unrelated types on damaged files
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: cannot be read as a checkpoint ({reason}). Name the last.pt of a run."
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is not a checkpoint of this version of MediScan. Name the last.pt of a run.")
    return state


def check_same_run(path: Path, stored: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of another network, other settings or other data.

    Args:
        path: Of the checkpoint, for the message.
        stored: Identity in the checkpoint, nested dictionaries of plain values.
        current: Identity of this run.

    Raises:
        CheckpointError: They differ; the message names every difference.
    """
    differences = list(_differences(stored, current))
    if differences:
        raise CheckpointError(
            f"{path}: belongs to another run: {'; '.join(differences)}. Resume with the settings and the manifest of "
            "that run, or start a new one in another folder."
        )


def require_space(folder: Path, needed_bytes: int, what: str) -> None:
    """Raise a WriteError where a folder's disk does not have that much room."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise WriteError(
            f"{folder}: {what} need about {needed_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free. Free some space "
            "or name another folder."
        )


def _differences(stored: Any, current: Any, name: str = "") -> list[str]:
    if isinstance(stored, Mapping) and isinstance(current, Mapping):
        found = []
        for key in dict.fromkeys((*stored, *current)):
            inner = f"{name}.{key}" if name else str(key)
            found += _differences(stored.get(key), current.get(key), inner)
        return found
    return [] if stored == current else [f"{name} is {stored!r} there and {current!r} here"]
