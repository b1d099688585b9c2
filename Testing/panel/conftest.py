"""Fixtures: the module's panel on real Qt widgets and a real MRML scene, without the application."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture
def slicer() -> Iterator[Any]:
    """The application's module `slicer`."""
    pytest.importorskip("PySide6.QtWidgets", reason="the panel needs Qt", exc_type=ImportError)
    from slicer_double.application import application
    from trame_slicer.core import SlicerApp

    app = SlicerApp()
    scene = app.scene
    with application(scene) as module:
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


@pytest.fixture
def picture(output_folder):
    """Saves the panel as a picture, to be looked at."""

    def save(widget: Any, name: str, width: int = 420, height: int = 900) -> Path:
        widget.window.resize(width, height)
        widget.window.show()
        path = output_folder / f"{name}.png"
        assert widget.window.grab().save(str(path))
        return path

    return save
