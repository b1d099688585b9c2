"""Fixtures: the module's panel on real Qt widgets and a real MRML scene, without the application."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture
def slicer() -> Iterator[Any]:
    """The application's module `slicer`."""
    pytest.importorskip("PySide6.QtWidgets", reason="the panel needs Qt", exc_type=ImportError)
    from slicer_double.application import application
    from slicer_double.pythonqt import Settings
    from trame_slicer.core import SlicerApp

    Settings.kept.clear()

    app = SlicerApp()
    scene = app.scene
    with application(app) as module:
        if not scene.IsNodeClassRegistered("vtkMRMLScriptedModuleNode"):
            scene.RegisterNodeClass(module.vtkMRMLScriptedModuleNode())
        yield module


@pytest.fixture
def panel(slicer) -> Iterator[Any]:
    """The panel, opened; whatever a slot raised fails the test."""
    from slicer_double.application import load_module, settle

    module = load_module()
    widget = module.MediScanWidget(type("Parent", (), {"isEntered": True})())
    widget.module = module
    widget.setup()
    widget.enter()
    settle()
    yield widget
    settle()
    widget.exit()
    widget.cleanup()
    settle()


@pytest.fixture(scope="session")
def radiograph(shared_data) -> Any:
    """A real chest radiograph, with what a header could state."""
    from dataclasses import replace

    from MediScanLib.study.reading import read_image

    image = read_image(shared_data / "images" / "nih" / "00011966_007.jpg")
    return replace(image, modality="CR", body_part="CHEST", view="AP", prefill={"age_years": 22.0, "sex": "M"})


@pytest.fixture(scope="session")
def predicted(radiograph) -> Any:
    """What the shipped model says of it, with four clinical values beside those of the header."""
    from MediScanLib.prediction.engine import InProcess
    from MediScanLib.prediction.exchange import Request
    from MediScanLib.study.record import ClinicalRecord

    record = ClinicalRecord(temperature_c=38.4, spo2_percent=91, leukocytes_1e9_per_l=13.2, crp_mg_per_l=120)
    return InProcess().predict(Request(radiograph, record, device="cpu"))


@pytest.fixture
def shown(panel, radiograph, predicted, slicer) -> Any:
    """The panel with the radiograph and its prediction; the volume node."""
    from slicer_double.application import settle

    from MediScanLib.scene.volumes import volume_from_image

    node = volume_from_image(slicer.mrmlScene, radiograph, "chest 22 M")
    panel.initializeParameterNode()
    settle()
    panel.onPrediction(node, predicted, jump=True)
    settle()
    return node


class FakeRun:
    """A run that ends when the test says so."""

    def __init__(self, request: dict[str, Any]) -> None:
        from MediScanLib.prediction.engine import Step

        self.request = request
        self.step = Step("slices", 1, 4)
        self.finished = False
        self.answer: Any = None

    def poll(self) -> Any:
        from MediScanLib.errors import UsageError

        if self.finished:
            raise UsageError("This run has ended already.")
        if self.answer is None:
            return None
        self.finished = True
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def cancel(self) -> None:
        from MediScanLib.errors import CancelledError

        self.answer = CancelledError("Cancelled.")


@pytest.fixture
def runs(panel, monkeypatch) -> list[FakeRun]:
    """In place of the engine: what the panel asks for, which the test answers by setting `answer`."""
    asked: list[FakeRun] = []

    def start(volume: Any, record: Any = None, **options: Any) -> FakeRun:
        # refuses what the engine would
        panel.logic._request(volume, record, **{"modelName": "mediscan-general", "device": "cpu"} | options)
        asked.append(FakeRun({"volume": volume, "record": record, **options}))
        return asked[-1]

    monkeypatch.setattr(panel.logic, "startProcessing", start)
    return asked


@pytest.fixture
def wait() -> Callable[..., None]:
    """Lets the panel work until a condition holds."""
    import time

    from slicer_double.application import settle

    def until(condition: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen"
            settle()
            time.sleep(0.01)
        settle()

    return until


@pytest.fixture
def picture(output_folder):
    """Saves the panel as a picture, to be looked at."""

    def save(widget: Any, name: str, width: int = 420) -> Path:
        from slicer_double.application import settle

        widget.window.show()
        widget.window.resize(width, 100)
        settle()
        widget.window.resize(width, widget.window.layout().totalHeightForWidth(width))  # the application scrolls
        settle()
        path = output_folder / f"{name}.png"
        assert widget.window.grab().save(str(path))
        return path

    return save
