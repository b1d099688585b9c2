"""Every style on real studies, as a user sees it: pictures in Testing/output/scene, and what must be seen in them."""

from __future__ import annotations

import csv
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from vtkmodules.util.numpy_support import vtk_to_numpy
from vtkmodules.vtkCommonCore import VTK_UNSIGNED_CHAR, vtkPoints
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkCommonTransforms import vtkThinPlateSplineTransform

from MediScanLib.prediction.colormaps import COLOR_MAPS
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.scene.geometry import to_vtk, world_ras
from MediScanLib.scene.overlay import show_overlay
from MediScanLib.scene.slice_plot import show_slice
from MediScanLib.scene.style import Style
from MediScanLib.scene.volumes import volume_from_image
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image

VIEW = (500, 500)
PLANES = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


@pytest.fixture
def pictures(output_folder):
    folder = output_folder / "scene"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load("mediscan-general", device="cpu")


def first_study(shared_data, **wanted):
    with (shared_data / "studies.csv").open(encoding="utf-8") as stream:
        row = next(r for r in csv.DictReader(stream) if all(r[name] == value for name, value in wanted.items()))
    return shared_data / row["image"]


@pytest.fixture(scope="module")
def radiograph(shared_data, predictor):
    image = read_image(first_study(shared_data, source="nih", label="pneumonia", split="test"))
    return image, predictor(image)


@pytest.fixture(scope="module")
def ultrasound(shared_data, predictor):
    image = read_image(first_study(shared_data, source="busi", label="cancer"))
    return image, predictor(image)


def color_volume(scene, image, name):
    """A vector volume, as the application makes of a picture."""
    gray = np.clip(image.pixels, 0, 255).astype(np.uint8)
    data = vtkImageData()
    data.SetDimensions(*gray.shape[::-1])
    data.AllocateScalars(VTK_UNSIGNED_CHAR, 3)
    vtk_to_numpy(data.GetPointData().GetScalars())[:] = gray.reshape(-1, 1)
    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", name)
    node.SetAndObserveImageData(data)
    node.SetIJKToRASMatrix(to_vtk(np.diag([-1.0, -1.0, 1.0, 1.0])))
    node.CreateDefaultDisplayNodes()
    return node


@pytest.fixture(scope="module")
def ct(shared_data, predictor):
    image = read_image(shared_data / "dicom" / "ct_ge_variable_gap")
    return image, predictor(image)


STYLES = {
    **{name.replace(" ", "_"): Style(colors=name) for name in COLOR_MAPS},
    **{f"{name.replace(' ', '_')}_outline": Style(colors=name, outline=True, opacity=1.0) for name in COLOR_MAPS},
    "common": Style(common_scale=True),
    "common_outline": Style(common_scale=True, outline=True, opacity=1.0),
    "no_legend": Style(legend=False),
}


CT_STYLES = ("inferno", "inferno_outline", "common")


@pytest.mark.parametrize(
    ("kind", "name"),
    [*product(("radiograph", "ultrasound"), STYLES), *product(("ct",), CT_STYLES)],
)
def test_pictures(scene, make_view, pictures, request, kind, name):
    image, prediction = request.getfixturevalue(kind)
    node = (color_volume if kind == "ultrasound" else volume_from_image)(scene, image, kind)
    display = node.GetDisplayNode()
    window = (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel())
    label = prediction.top.label
    maps = prediction.maps
    place = world_ras(node, maps.peak(label)[1])
    views = [make_view(color, orientation, VIEW) for color, orientation in PLANES.items()]
    for view in views[: 3 if kind == "ct" else 1]:
        view.composite.SetBackgroundVolumeID(node.GetID())
        view.fit()
        view.look_at(place)
    plain = [view.picture() for view in views]
    show_overlay(scene, maps, label, node, STYLES[name])
    for view, before in zip(views, plain, strict=True):
        drawn = view.picture()
        orientation = PLANES[view.node.GetLayoutName()].lower()
        if kind == "ct" or orientation == "axial":
            Image.fromarray(drawn).save(pictures / f"style_{kind}_{orientation}_{name}.png")
            assert (drawn != before).any()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == window


def runs(line):
    """Lengths of the stretches of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(int), [0]])))
    return list(edges[1::2] - edges[::2])


def drawn_by(scene, view, maps, node, style):
    """True where the overlay covers the view."""
    show_overlay(scene, maps, "pneumonia", node, replace(style, visible=False))
    plain = view.picture()
    show_overlay(scene, maps, "pneumonia", node, replace(style, opacity=1.0, legend=False))
    return (view.picture() != plain).any(axis=2)


def uniform(shape, **geometry):
    return MedicalImage(np.full(shape, 120, np.float32), window=(100.0, 300.0), **geometry)


@pytest.mark.parametrize("size", [8, 64, 128, 512, 1024, 2048, 4096])
def test_line_is_as_wide_on_every_image(scene, make_view, heat_maps, size):
    """Fitted to the view: to be seen, and not over the anatomy."""
    node = volume_from_image(scene, uniform((1, size, size), spacing=(0.3, 0.3, 1.0)), "image")
    view = make_view("Red", "Axial", VIEW)
    view.composite.SetBackgroundVolumeID(node.GetID())
    view.fit()
    maps, index = heat_maps((1, size, size), (0, 3, 3))
    drawn = drawn_by(scene, view, maps, node, Style(outline=True, threshold=0.3))
    row, column = (round(at) for at in view.pixel_of(world_ras(node, index)))
    for line in (drawn[row], drawn[:, column]):
        assert len(runs(line)) == 2, "both sides of the region, and nothing inside"
        assert all(4 <= width <= 9 for width in runs(line)), f"{runs(line)} pixels, dark edges included"
    assert drawn.mean() < 0.06


@pytest.mark.parametrize("plane", PLANES.values())
def test_outline_of_a_volume_is_closed_in_every_view(scene, make_view, heat_maps, plane):
    node = volume_from_image(scene, uniform((24, 90, 90), spacing=(2.0, 2.0, 7.5)), "volume")
    view = make_view("Red", plane, VIEW)
    view.composite.SetBackgroundVolumeID(node.GetID())
    maps, index = heat_maps((24, 90, 90), (12, 3, 3))
    view.fit()
    view.look_at(world_ras(node, index))
    drawn = drawn_by(scene, view, maps, node, Style(outline=True, threshold=0.3))
    row, column = (round(at) for at in view.pixel_of(world_ras(node, index)))
    assert not drawn[row, column]
    outside = Image.fromarray((drawn * 255).astype(np.uint8)).copy()  # one of its own, to paint in
    ImageDraw.floodfill(outside, (2, 2), 128)
    assert outside.getpixel((column, row)) == 0, "from outside there is no way in"
    assert outside.getpixel((2, 2)) == 128


def bent(scene):
    """A thin plate spline: no matrix says where the voxels are."""
    source, target = vtkPoints(), vtkPoints()
    for x, y, z in np.ndindex(2, 2, 2):
        source.InsertNextPoint(x * 200 - 100, y * 200 - 100, z * 60)
        target.InsertNextPoint(x * 180 - 90 + 20 * y, y * 220 - 100, z * 60)
    spline = vtkThinPlateSplineTransform()
    spline.SetBasisToR()
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    node = scene.AddNewNodeByClass("vtkMRMLTransformNode", "bent")
    node.SetAndObserveTransformToParent(spline)
    return node


@pytest.mark.parametrize("bend", [False, True], ids=["oblique", "bent"])
def test_line_lies_where_the_colors_end(scene, make_view, heat_maps, bend):
    turn = np.radians(25)
    turned = (np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1)
    image = uniform((3, 700, 500), spacing=(0.25, 0.2, 4.0), origin=(-60.0, -40.0, 0.0), direction=turned)
    node = volume_from_image(scene, image, "image")
    if bend:
        node.SetAndObserveTransformNodeID(bent(scene).GetID())
    view = make_view("Red", "Axial", VIEW)
    view.composite.SetBackgroundVolumeID(node.GetID())
    view.fit()
    show_slice(scene, node, 1)
    maps = heat_maps((3, 700, 500), (1, 3, 2))[0]
    colored = Image.fromarray(drawn_by(scene, view, maps, node, Style(threshold=0.4)))
    line = Image.fromarray(drawn_by(scene, view, maps, node, Style(threshold=0.4, outline=True)))
    grown = np.asarray(colored.convert("L").filter(ImageFilter.MaxFilter(3)))
    border = (grown > 0) & ~np.asarray(colored)
    assert border.sum() > 200
    assert np.asarray(line)[border].mean() > 0.98


@pytest.mark.parametrize("outline", [False, True])
def test_picture_of_a_small_view(scene, make_view, pictures, radiograph, outline):
    """The longer of the titles still fits where three views share a small screen."""
    image, prediction = radiograph
    node = volume_from_image(scene, image, "radiograph")
    view = make_view("Red", "Axial", (230, 230))
    view.composite.SetBackgroundVolumeID(node.GetID())
    view.fit()
    style = Style(common_scale=True, outline=outline)
    show_overlay(scene, prediction.maps, "pneumonia", node, replace(style, legend=False))
    without = view.picture()
    show_overlay(scene, prediction.maps, "pneumonia", node, style)
    drawn = view.picture()
    Image.fromarray(drawn).save(pictures / f"style_small_view_{'outline' if outline else 'fill'}.png")
    legend = (drawn != without).any(axis=2)
    assert legend.any()
    assert not legend[:, 0].any(), "it does not run over the left border"
