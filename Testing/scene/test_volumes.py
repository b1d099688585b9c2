"""Volume nodes to MedicalImage and back."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonDataModel import vtkImageData

from MediScanLib.errors import ReadError, UsageError
from MediScanLib.scene.geometry import LPS_RAS, ijk_to_ras, to_vtk, world_ras
from MediScanLib.scene.volumes import display_window, image_from_volume, mend_window, volume_from_image
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image

shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
lengths = st.floats(0.01, 20)
places = st.floats(-500, 500)


def rotation(angles):
    x, y, z = angles
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return rz @ ry @ rx


rotations = st.tuples(*[st.floats(-np.pi, np.pi)] * 3).map(rotation)


@st.composite
def images(draw):
    shape = draw(shapes)
    direction = draw(rotations) @ np.diag([1, 1, draw(st.sampled_from([1, -1]))])
    pixels = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    return MedicalImage(
        pixels,
        spacing=draw(st.tuples(lengths, lengths, lengths)),
        origin=draw(st.tuples(places, places, places)),
        direction=tuple(direction.ravel()),
    )


def vector_node(scene, array):
    """A vtkMRMLVectorVolumeNode as Slicer makes from a color picture; (slice, row, column, component)."""
    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "picture")
    data = vtkImageData()
    data.SetDimensions(*array.shape[2::-1])
    data.GetPointData().SetScalars(numpy_to_vtk(array.reshape(-1, array.shape[3]), deep=True))
    node.SetAndObserveImageData(data)
    return node


def transform_node(scene, matrix):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    node.SetMatrixTransformToParent(to_vtk(matrix))
    return node


@given(image=images(), at=st.tuples(*[st.floats(-3, 9)] * 3))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_geometry_round_trip(scene, image, at):
    node = volume_from_image(scene, image, "x")
    back = image_from_volume(node)
    scene.RemoveNode(node)
    assert np.array_equal(back.pixels, image.pixels)
    assert np.allclose(back.affine, image.affine, atol=1e-9 * 500)
    assert back.spacing == pytest.approx(image.spacing)
    assert back.to_index(image.to_physical(at)) == pytest.approx(at, abs=1e-3)


@given(image=images(), at=st.tuples(*[st.floats(-3, 9)] * 3))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_node_and_image_name_the_same_place(scene, image, at):
    node = volume_from_image(scene, image, "x")
    ras = np.array(world_ras(node, at))
    scene.RemoveNode(node)
    assert ras * [-1, -1, 1] == pytest.approx(image.to_physical(at), abs=1e-6)


@given(image=images(), turn=rotations, shift=st.tuples(places, places, places))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_linear_transforms_are_applied(scene, image, turn, shift):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn, shift
    node = volume_from_image(scene, image, "x")
    mover = transform_node(scene, matrix)
    node.SetAndObserveTransformNodeID(mover.GetID())
    moved = image_from_volume(node)
    scene.RemoveNode(node)
    scene.RemoveNode(mover)
    assert np.allclose(moved.affine, LPS_RAS @ matrix @ LPS_RAS @ image.affine, atol=1e-6)


def test_shear_is_refused(scene):
    node = volume_from_image(scene, MedicalImage(np.zeros((2, 3, 4), np.float32), spacing=(1, 1, 1)), "sheared")
    matrix = np.eye(4)
    matrix[0, 2] = 0.3
    node.SetAndObserveTransformNodeID(transform_node(scene, matrix).GetID())
    with pytest.raises(ReadError, match="right angles") as caught:
        image_from_volume(node)
    assert caught.value.code == "geometry"


def test_nonlinear_transform_is_refused(scene):
    node = volume_from_image(scene, MedicalImage(np.zeros((2, 3, 4), np.float32), spacing=(1, 1, 1)), "bent")
    grid = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "acquisition transform")
    node.SetAndObserveTransformNodeID(grid.GetID())
    with pytest.raises(ReadError, match=r"acquisition transform.*Harden") as caught:
        image_from_volume(node)
    assert caught.value.code == "geometry"


def test_axis_without_length_is_refused(scene):
    node = volume_from_image(scene, MedicalImage(np.zeros((1, 3, 4), np.float32)), "flat")
    matrix = ijk_to_ras(node)
    matrix[:, 2] = [0, 0, 0, 0]
    node.SetIJKToRASMatrix(to_vtk(matrix))
    with pytest.raises(ReadError, match="without length"):
        image_from_volume(node)


def test_color_becomes_luminance(scene):
    array = np.zeros((1, 2, 3, 3), dtype=np.uint8)
    array[..., 0], array[..., 1], array[..., 2] = 10, 100, 200
    image = image_from_volume(vector_node(scene, array))
    assert image.color
    assert image.shape == (1, 2, 3)
    assert image.pixels == pytest.approx(0.299 * 10 + 0.587 * 100 + 0.114 * 200)


def test_gray_picture_stored_as_color_is_gray(scene):
    array = np.repeat(np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1), 3, axis=3)
    image = image_from_volume(vector_node(scene, array))
    assert not image.color
    assert np.array_equal(image.pixels, array[..., 0])


def test_picture_as_from_its_file(scene, tmp_path):
    """The panel and the command line see the same pixels of the same picture."""
    rng = np.random.default_rng(1)
    array = rng.integers(0, 255, (1, 9, 7, 3), dtype=np.uint8)
    Image.fromarray(array[0]).save(tmp_path / "a.png")
    from_file, from_node = read_image(tmp_path / "a.png"), image_from_volume(vector_node(scene, array))
    assert from_file.color == from_node.color
    assert np.allclose(from_file.pixels, from_node.pixels, atol=1e-3)


def test_alpha_is_left_out(scene):
    array = np.full((1, 2, 2, 4), 60, dtype=np.uint8)
    array[..., 3] = 0
    assert image_from_volume(vector_node(scene, array)).pixels == pytest.approx(60)


def test_gray_with_alpha_is_gray(scene):
    array = np.stack([np.full((1, 2, 2), 7.0), np.full((1, 2, 2), 255.0)], axis=3)
    image = image_from_volume(vector_node(scene, array))
    assert not image.color
    assert image.pixels == pytest.approx(7)


def test_many_components_are_refused(scene):
    with pytest.raises(ReadError, match="6 values a voxel"):
        image_from_volume(vector_node(scene, np.zeros((1, 2, 2, 6))))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float64])
def test_voxel_types(scene, dtype):
    array = np.array([[[0, 3], [100, 7]]], dtype=dtype)
    node = slicer.vtkMRMLScalarVolumeNode()
    scene.AddNode(node)
    data = vtkImageData()
    data.SetDimensions(2, 2, 1)
    data.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    node.SetAndObserveImageData(data)
    assert np.array_equal(image_from_volume(node).pixels, array)


def test_image_does_not_change_with_the_node(scene):
    node = volume_from_image(scene, MedicalImage(np.ones((1, 2, 2), np.float32)), "x")
    image = image_from_volume(node)
    vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())[:] = 5
    assert (image.pixels == 1).all()


def test_not_finite(scene):
    node = volume_from_image(scene, MedicalImage(np.ones((1, 2, 2), np.float32)), "x")
    voxels = vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())
    voxels[0] = np.nan
    image = image_from_volume(node)
    assert image.pixels[0, 0, 0] == 1
    assert image.warnings
    voxels[:] = np.inf
    with pytest.raises(ReadError, match="NaN or infinity"):
        image_from_volume(node)


def test_empty_and_wrong_nodes(scene):
    with pytest.raises(ReadError, match="no voxels"):
        image_from_volume(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
    with pytest.raises(UsageError, match="no image volume"):
        image_from_volume(None)
    with pytest.raises(UsageError, match="no image volume"):
        image_from_volume(scene.AddNewNodeByClass("vtkMRMLModelNode", "model"))


def test_shifted_extent(scene):
    """A cropped volume may start at another index: voxel (1, 2, 3) of the extent is where IJK says."""
    node = volume_from_image(scene, MedicalImage(np.zeros((2, 3, 4), np.float32), spacing=(2, 3, 5)), "crop")
    node.GetImageData().SetExtent(3, 6, 2, 4, 1, 2)
    assert image_from_volume(node).origin == pytest.approx((6, 6, 5))


@pytest.mark.parametrize(("file_name", "known"), [("a.PNG", False), ("b.jpeg", False), ("c.nrrd", True)])
def test_pictures_have_no_lengths(scene, file_name, known):
    node = volume_from_image(scene, MedicalImage(np.zeros((1, 3, 4), np.float32), spacing=(1, 1, 1)), "x")
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    scene.AddNode(storage)
    storage.SetFileName(file_name)
    node.SetAndObserveStorageNodeID(storage.GetID())
    assert (image_from_volume(node).spacing is not None) == known


def test_facts_survive_the_scene(scene):
    image = MedicalImage(
        np.zeros((1, 3, 4), np.float32),
        modality="DX",
        body_part="CHEST",
        view="PA",
        laterality="L",
        window=(50.0, 100.0),
        inverted=True,
        identifiers={"study": "abc"},
        prefill={"age_years": 63.0, "sex": "F"},
        warnings=("A phantom.",),
    )
    back = image_from_volume(volume_from_image(scene, image, "x"))
    for name in ("spacing", "modality", "body_part", "view", "laterality", "window", "inverted", "units", "warnings"):
        assert getattr(back, name) == getattr(image, name), name
    assert dict(back.identifiers) == dict(image.identifiers)
    assert dict(back.prefill) == dict(image.prefill)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"window": (10.0, 20.0)}, (10.0, 20.0)),
        ({"units": "HU", "modality": "CT", "body_part": "CHEST"}, (-600.0, 1500.0)),
        ({"units": "HU", "modality": "CT"}, (40.0, 400.0)),
        ({}, (50.0, 98.0)),
    ],
)
def test_window(scene, facts, expected):
    pixels = np.arange(101, dtype=np.float32).reshape(1, 1, 101)
    image = MedicalImage(pixels, **facts)
    assert display_window(image) == pytest.approx(expected)
    display = volume_from_image(scene, image, "x").GetDisplayNode()
    assert (display.GetLevel(), display.GetWindow()) == pytest.approx(expected)
    assert not display.GetAutoWindowLevel()


def test_window_of_an_even_image():
    assert display_window(MedicalImage(np.full((1, 2, 2), 3.0, np.float32)))[1] > 0


class Database:
    """Stands for `slicer.dicomDatabase`."""

    def __init__(self, files):
        self.files = files

    def fileForInstance(self, uid):  # noqa: N802 - the application's name
        return self.files.get(uid, "")


def dicom_file(path, **elements):
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.PatientID = "1.2.3", "P1"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.save_as(path, enforce_file_format=True)
    return str(path)


def loaded(scene, monkeypatch, tmp_path, pixels, **elements):
    """A volume node as the DICOM module leaves it."""
    node = volume_from_image(scene, MedicalImage(pixels, spacing=(1, 1, 1)), "loaded")
    node.RemoveAttribute("MediScan.Image")
    node.SetAttribute("DICOM.instanceUIDs", "a b c")
    file = dicom_file(tmp_path / "é b.dcm", **elements)
    monkeypatch.setattr(slicer, "dicomDatabase", Database({"b": file}), raising=False)
    return node


def test_dicom_database(scene, monkeypatch, tmp_path):
    node = loaded(
        scene,
        monkeypatch,
        tmp_path,
        np.array([[[-3024.0, 50.0]]], np.float32),
        Modality="CT",
        PhotometricInterpretation="MONOCHROME2",
        BodyPartExamined="CHEST",
        PatientAge="063Y",
        PatientSex="F",
        PixelSpacing=[1, 1],
        WindowCenter=[40, -600],
        WindowWidth=[400, 1500],
    )
    image = image_from_volume(node)
    assert (image.modality, image.body_part, image.units) == ("CT", "CHEST", "HU")
    assert image.window == (40, 400)
    assert dict(image.prefill) == {"age_years": 63, "sex": "F"}
    assert set(image.identifiers) == {"patient", "study", "instance"}
    assert "P1" not in image.identifiers.values()
    assert image.pixels.tolist() == [[[-1024, 50]]]


def test_dicom_without_spacing(scene, monkeypatch, tmp_path):
    node = loaded(scene, monkeypatch, tmp_path, np.zeros((1, 2, 2), np.float32), Modality="DX")
    assert image_from_volume(node).spacing is None


class Application:
    """Stands for `slicer.app` with one setting."""

    def __init__(self, approach):
        self.approach = approach

    def userSettings(self):  # noqa: N802 - the application's name
        return self

    def value(self, key):
        assert key == "DICOM/ScalarVolume/ReaderApproach"
        return self.approach


@pytest.mark.parametrize(("approach", "expected"), [(None, [0, 1]), ("0", [0, 1]), (2, [0, 1]), ("1", [1, 0])])
def test_monochrome1_is_inverted_once(scene, monkeypatch, tmp_path, approach, expected):
    """GDCM has inverted the voxels already, DCMTK (approach 1) has not."""
    node = loaded(
        scene,
        monkeypatch,
        tmp_path,
        np.array([[[0.0, 1.0]]], np.float32),
        Modality="DX",
        PhotometricInterpretation="MONOCHROME1",
        WindowCenter=1,
        WindowWidth=2,
    )
    monkeypatch.setattr(slicer, "app", Application(approach), raising=False)
    image = image_from_volume(node)
    assert image.inverted
    assert image.window is None
    assert image.pixels.ravel().tolist() == expected


def test_file_gone_from_the_database(scene, monkeypatch, tmp_path):
    node = loaded(scene, monkeypatch, tmp_path, np.zeros((1, 2, 2), np.float32), Modality="DX")
    for file in tmp_path.iterdir():
        file.unlink()
    assert image_from_volume(node).modality is None


def test_subject_hierarchy(scene):
    node = volume_from_image(scene, MedicalImage(np.zeros((1, 2, 2), np.float32)), "x")
    node.RemoveAttribute("MediScan.Image")
    hierarchy = scene.GetSubjectHierarchyNode()
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    series = hierarchy.CreateItem(study, node)
    for item, keyword, value in (
        (patient, "PatientSex", "M"),
        (patient, "PatientBirthDate", "19600401"),
        (study, "StudyDate", "2020-04-02"),
        (series, "Modality", "CT"),
    ):
        hierarchy.SetItemAttribute(item, f"DICOM.{keyword}", value)
    image = image_from_volume(node)
    assert image.modality == "CT"
    assert image.prefill["sex"] == "M"
    assert image.prefill["age_years"] == pytest.approx(60, abs=0.01)


@pytest.mark.parametrize(
    ("inverted", "touched", "mended"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_window_of_monochrome1_is_mended_once(scene, inverted, touched, mended):
    pixels = np.arange(4096, dtype=np.float32).reshape(1, 64, 64)
    image = MedicalImage(pixels, inverted=inverted)
    node = volume_from_image(scene, image, "x")
    display = node.GetDisplayNode()
    display.AddWindowLevelPreset(300, 200)
    display.SetWindowLevelFromPreset(0)
    if touched:
        display.SetWindowLevel(301, 200)
    before = display.GetWindow(), display.GetLevel()
    mend_window(node, image)
    assert ((display.GetWindow(), display.GetLevel()) != before) == mended
