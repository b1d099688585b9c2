"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real studies: MEDISCAN_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("MEDISCAN_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "studies.csv").is_file():
        pytest.skip(f"real data not found at {folder}; set MEDISCAN_DATA to the folder that holds studies.csv")
    return folder


@pytest.fixture(scope="session")
def output_folder() -> Path:
    """Where tests leave pictures for a person to look at."""
    folder = ROOT / "Testing" / "output"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
