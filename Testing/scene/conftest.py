"""Fixtures: a MRML scene as in the application and slice views that render without a screen."""

from __future__ import annotations

import numpy as np
import pytest
from trame_slicer.core import SlicerApp
from trame_slicer.views import DirectViewFactory, ViewLayoutDefinition, ViewProps, ViewType
from trame_slicer.views.render_scheduler import NoScheduleRendering
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonMath import vtkMatrix4x4
from vtkmodules.vtkRenderingCore import vtkWindowToImageFilter

from MediScanLib.prediction.heatmaps import AxisMap, HeatMaps
from MediScanLib.prediction.result import Prediction


@pytest.fixture
def app():
    return SlicerApp()


@pytest.fixture
def scene(app):
    return app.scene


class View:
    """A slice view, its picture as an array and the place of a patient position in that picture."""

    def __init__(self, view):
        self.view = view

    @property
    def node(self):
        return self.view.get_view_node()

    @property
    def composite(self):
        return self.view._logic.GetSliceCompositeNode()

    def fit(self):
        self.view.fit_view_to_content()

    def look_at(self, ras):
        self.node.JumpSliceByOffsetting(*ras)

    def picture(self):
        """(row, column, 3) uint8, row 0 on top."""
        self.view.render()
        grab = vtkWindowToImageFilter()
        grab.SetInput(self.view.render_window())
        grab.ReadFrontBufferOff()
        grab.Update()
        data = grab.GetOutput()
        width, height, _ = data.GetDimensions()
        return vtk_to_numpy(data.GetPointData().GetScalars()).reshape(height, width, 3)[::-1].copy()

    def pixel_of(self, ras):
        """(row, column) in `picture` of a RAS position on the slice."""
        inverse = vtkMatrix4x4()
        vtkMatrix4x4.Invert(self.node.GetXYToRAS(), inverse)
        x, y, *_ = inverse.MultiplyPoint((*ras, 1.0))
        return self.view.render_window().GetSize()[1] - 1 - y, x


@pytest.fixture
def make_view(app):
    app.view_manager.register_factory(DirectViewFactory(do_render_offscreen=True))
    made = []

    def make(name="Red", orientation="Axial", size=(640, 560)):
        view = app.view_manager.create_view(
            ViewLayoutDefinition(
                singleton_tag=name, view_type=ViewType.SLICE_VIEW, properties=ViewProps(orientation=orientation)
            )
        )
        view.set_scheduled_render(NoScheduleRendering())  # else each change of a node draws all views anew
        view.interactor().UpdateSize(*size)
        made.append(view)
        return View(view)

    yield make
    for view in made:
        view.set_foreground_volume_id(None)
        view.set_background_volume_id(None)
        view.finalize()


@pytest.fixture
def heat_maps():
    return _heat_maps


def _heat_maps(shape, node, grid=(7, 7), labels=("pneumonia", "normal"), height=0.8, scale=1.0):
    """Maps of a slice-by-slice network and the (slice, row, column) image index where the first label is hottest.

    `node` is (image slice, map row, map column); the map's corners coincide with the image's.
    """
    rows, columns = (
        AxisMap(scale=(length - 1) / (size - 1), offset=0.0) for length, size in zip(grid, shape[1:], strict=True)
    )
    down, across = np.mgrid[0 : grid[0], 0 : grid[1]]
    in_plane = np.exp(-((down - node[1]) ** 2 + (across - node[2]) ** 2) / 1.5)
    through = np.exp(-(((np.arange(shape[0]) - node[0]) / max(1.0, shape[0] / 6)) ** 2))
    values = np.full((len(labels), shape[0], *grid), 0.1 * scale, dtype=np.float32)
    values[0] = height * scale * through[:, None, None] * in_plane
    maps = HeatMaps(tuple(labels), values, tuple(shape), rows, columns, tuple(range(shape[0])), (scale,) * len(labels))
    return maps, (node[0], node[1] / rows.scale, node[2] / columns.scale)


@pytest.fixture
def prediction():
    """Makes a prediction; keywords replace its parts."""
    return _prediction


def _prediction(**changes):
    values = {
        "input": "Lungenaufnahme für Ärzte",
        "image": {
            "shape": (1, 12, 10),
            "spacing": None,
            "origin": (0, 0, 0),
            "direction": (1, 0, 0, 0, 1, 0, 0, 0, 1),
            "modality": "DX",
            "body_part": None,
            "view": None,
            "laterality": None,
            "color": False,
            "inverted": False,
            "identifiers": {},
            "reader": "volume node",
            "warnings": [],
        },
        "findings": [
            {"label": "normal", "probability": 0.12345678, "threshold": 0.5, "decision": "absent", "calibrated": True},
            {"label": "pneumonia", "probability": 0.8, "threshold": 0.4, "decision": "present", "calibrated": True},
        ],
        "severity": {"applicable": True, "score": 0.5, "grade": "moderate", "scale": "Brixia 0-18", "value": 9.0},
        "certainty": {"label": "pneumonia", "deferred": False, "reasons": []},
        "clinical": {"used": {"age_years": 63.0}, "missing": ["sex"], "prefilled": []},
        "heat_maps": [],
        "provenance": {
            "model": "mediscan-general",
            "model_version": "1",
            "model_sha256": "0",
            "device": "cpu",
            "runtime": "torch",
            "versions": {},
            "seconds": {},
        },
    }
    return Prediction.model_validate({**values, **changes})
