"""Servers and browsers for tests of the web page."""

from __future__ import annotations

from pathlib import Path

import pytest
from paging import chromium
from serving import make_bundle


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with a bundle whose answers mean nothing."""
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    path = chromium()
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield running
        running.close()
