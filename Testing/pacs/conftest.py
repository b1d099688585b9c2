"""Nodes and archives for their tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nodes import MODEL, NodeProcess, RunningNode
from orthanc import Orthanc, orthanc_program
from serving import free_port, make_bundle

from MediScanLib.pacs.settings import PacsSettings


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder, MODEL)
    return folder


@pytest.fixture(autouse=True)
def _known_models(model_folder, monkeypatch):
    monkeypatch.setenv("MEDISCAN_MODELS", str(model_folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def node_port() -> int:
    """Where nodes of tests that use the archive listen: it must know the port before they start."""
    return free_port()


@pytest.fixture(scope="session")
def archive(tmp_path_factory, node_port):
    """Orthanc, for all tests that do not kill it."""
    if orthanc_program() is None:
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed")
    running = Orthanc(tmp_path_factory.mktemp("orthanc"), {"mediscan": ("MEDISCAN", node_port)}).start()
    yield running
    running.kill()


@pytest.fixture
def make_settings(tmp_path):
    """Settings for a quick node that keeps everything in this test's folder."""

    def make(destinations: dict[str, Any], *, send_to: Any = None, **changes: Any) -> PacsSettings:
        given = {
            "folder": str(tmp_path / "node"),
            "listen": {"port": 0},
            "study": {"quiet_s": 0.5, "broken_s": 1.0, "open_s": 5.0},
            "predict": {"workers": 1, "threads": 1},
            "retry": {"first_s": 0.2, "most_s": 1.0},
            "limits": {"free_mb": 0},
            "destinations": destinations,
            "rules": [{"name": "all", "model": MODEL, "send_to": send_to or list(destinations)}],
        }
        return PacsSettings.model_validate({**given, **changes})

    return make


@pytest.fixture
def start_node():
    """Start nodes; they are stopped at the end."""
    running: list[RunningNode] = []

    def start(settings: PacsSettings, **options: Any) -> RunningNode:
        running.append(RunningNode(settings, **options))
        return running[-1]

    yield start
    for one in running:
        one.stop()


@pytest.fixture
def start_process():
    """Start node processes; they are killed at the end."""
    running: list[NodeProcess] = []

    def start(*arguments: Any) -> NodeProcess:
        running.append(NodeProcess(*arguments))
        return running[-1]

    yield start
    for one in running:
        one.kill()
