"""What is said about an image before the model looks at it."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import slicer
from vtkmodules.util.numpy_support import get_vtk_array_type, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData

from MediScanLib.scene.geometry import to_vtk
from MediScanLib.scene.image_facts import describe_image
from MediScanLib.scene.overlay import make_overlay
from MediScanLib.scene.volumes import image_from_volume, volume_from_image
from MediScanLib.study.image import MedicalImage


def facts(node):
    return dict(describe_image(node))


def picture(scene, voxels, class_name="vtkMRMLVectorVolumeNode"):
    """A volume node of (slice, row, column, component) voxels."""
    data = vtkImageData()
    data.SetDimensions(*voxels.shape[2::-1])
    data.AllocateScalars(get_vtk_array_type(voxels.dtype), voxels.shape[3])
    vtk_to_numpy(data.GetPointData().GetScalars()).reshape(-1)[:] = voxels.reshape(-1)
    node = scene.AddNewNodeByClass(class_name, "picture")
    node.SetAndObserveImageData(data)
    return node


def test_radiograph(scene):
    image = MedicalImage(
        np.zeros((1, 12, 10), np.float32),
        spacing=(0.15, 0.15, 1.0),
        modality="DX",
        body_part="CHEST",
        view="PA",
        laterality="L",
        inverted=True,
        prefill={"age_years": 63.0, "sex": "F"},
        identifiers={"patient": "abc"},
    )
    said = describe_image(volume_from_image(scene, image, "Doe^Jane"))
    assert said == [
        ("Modality", "DX"),
        ("Body part", "CHEST"),
        ("View", "PA, left"),
        ("Kind", "single image"),
        ("Size", "10 x 12"),
        ("Spacing", "0.15 x 0.15 mm"),
        ("Values", "gray, was stored inverted (MONOCHROME1)"),
    ]
    told = repr(said)
    assert not any(secret in told for secret in ("Doe", "63", "abc", "'F'")), "nothing of the patient"


def test_volume(scene):
    image = MedicalImage(np.zeros((4, 12, 10), np.float32), spacing=(0.5, 0.5, 3.0), modality="CT", units="HU")
    said = facts(volume_from_image(scene, image, "CT"))
    assert (said["Kind"], said["Size"], said["Spacing"]) == ("volume of 4 slices", "10 x 12 x 4", "0.5 x 0.5 x 3 mm")
    assert said["Values"] == "gray, Hounsfield units"
    assert "View" not in said
    assert said["Body part"] == "not stated"


def test_no_length(scene):
    node = volume_from_image(scene, MedicalImage(np.zeros((1, 12, 10), np.float32)), "photograph")
    assert facts(node)["Spacing"] == "no physical spacing"
    other = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "png")
    other.SetAndObserveImageData(node.GetImageData())
    assert facts(other)["Spacing"] == "1 x 1 mm"
    other.AddDefaultStorageNode()
    other.GetStorageNode().SetFileName("/tmp/image.PNG")
    assert facts(other)["Spacing"] == "no physical spacing"


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("components", [3, 4])
def test_color_as_the_model_sees_it(scene, share, components):
    random = np.random.default_rng(2)
    voxels = np.repeat(random.integers(0, 255, (1, 480, 640, 1), np.uint8), components, axis=3)
    voxels[:, : int(480 * share), :, 0] ^= 128
    node = picture(scene, voxels)
    assert image_from_volume(node).color == (share > 0)
    assert facts(node)["Values"] == ("color" if share else "gray, stored as color")


def test_transformed(scene):
    node = volume_from_image(scene, MedicalImage(np.zeros((2, 12, 10), np.float32), spacing=(1, 1, 3)), "CT")
    mover = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "larger")
    mover.SetMatrixTransformToParent(to_vtk(np.diag([2.0, 2.0, 2.0, 1.0])))
    node.SetAndObserveTransformNodeID(mover.GetID())
    assert facts(node)["Spacing"] == "2 x 2 x 6 mm"
    shear = np.eye(4)
    shear[0, 2] = 0.5
    mover.SetMatrixTransformToParent(to_vtk(shear))
    assert facts(node)["Spacing"] == "1 x 1 x 3 mm", "a geometry that the model refuses is described all the same"


def test_nothing_to_say(scene):
    assert describe_image(None) == []
    assert describe_image(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")) == []


def test_current_frame_of_a_sequence(scene, heat_maps):
    """The volume that a sequence browser shows works as its current frame."""
    logic = slicer.vtkSlicerSequencesLogic()  # the application's own copies the frame into the volume
    logic.SetMRMLScene(scene)
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    for frame in range(3):
        image = MedicalImage(np.full((1, 12, 10), frame, np.float32), spacing=(1, 1, 1), modality="US")
        node = volume_from_image(scene, image, f"frame {frame}")
        sequence.SetDataNodeAtValue(node, str(frame))
        scene.RemoveNode(node)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    shown = browser.AddProxyNode(sequence.GetDataNodeAtValue("1"), sequence, True)
    browser.SetSelectedItemNumber(1)
    logic.UpdateProxyNodesFromSequences(browser)
    assert facts(shown)["Kind"] == "single image, frame 2 of 3"
    assert facts(shown)["Modality"] == "US"
    assert image_from_volume(shown).pixels.min() == 1
    maps = heat_maps((1, 12, 10), (0, 2, 3))[0]
    assert make_overlay(scene, maps, "pneumonia", shown).GetImageData().GetDimensions() == (10, 12, 1)
    browser.SetSelectedItemNumber(2)
    logic.UpdateProxyNodesFromSequences(browser)
    assert facts(shown)["Kind"] == "single image, frame 3 of 3"
    assert image_from_volume(shown).pixels.min() == 2


@pytest.mark.parametrize("components", [1, 3])
def test_a_large_volume_is_not_copied(scene, components):
    voxels = np.zeros((400, 512, 512, components), np.uint8 if components == 3 else np.int16)
    node = picture(scene, voxels, "vtkMRMLVectorVolumeNode" if components == 3 else "vtkMRMLScalarVolumeNode")
    tracemalloc.start()
    try:
        describe_image(node)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < voxels.nbytes / 50
