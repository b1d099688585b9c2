"""A reader's box, segments or label map on the grid of an image, and how heat maps agree with them."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from vtkmodules.vtkFiltersSources import vtkCubeSource, vtkSphereSource

from MediScanLib.errors import UsageError
from MediScanLib.prediction.localization import overlap, relevance_mass
from MediScanLib.scene.geometry import ijk_to_world_ras, to_numpy, to_vtk
from MediScanLib.scene.regions import compare_with_region, make_region, region_mask, region_on
from MediScanLib.scene.session import add_prediction
from MediScanLib.scene.volumes import volume_from_image, write_voxels
from MediScanLib.study.image import MedicalImage

SHAPE = (12, 40, 30)


def turned(*degrees):
    """Rotation about x, y and z, (3, 3)."""
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        other = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[np.ix_(other, other)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        result = turn @ result
    return result


def make_volume(scene, shape=SHAPE, direction=None, spacing=(0.7, 1.1, 3.0), origin=(-20.0, 35.0, 100.0), name="CT"):
    image = MedicalImage(
        np.zeros(shape, np.float32),
        spacing=spacing,
        origin=origin,
        direction=tuple((np.eye(3) if direction is None else direction).ravel()),
    )
    return volume_from_image(scene, image, name)


def make_roi(scene, center, size, axes=None):
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    matrix = np.eye(4)
    if axes is not None:
        matrix[:3, :3] = axes
    matrix[:3, 3] = center
    node.SetAndObserveObjectToNodeMatrix(to_vtk(matrix))
    node.SetSize(*size)
    return node


def moved(scene, node, matrix):
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    transform.SetMatrixTransformToParent(to_vtk(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def centers(reference):
    """(slices, rows, columns, 3) world RAS of the voxel centers."""
    columns, rows, slices = reference.GetImageData().GetDimensions()
    k, j, i = np.mgrid[0:slices, 0:rows, 0:columns]
    return np.stack([i, j, k, np.ones_like(i)], axis=-1) @ ijk_to_world_ras(reference).T


def place_of(reference, index):
    return (ijk_to_world_ras(reference) @ (*index[::-1], 1))[:3]


def labels_at(scene, reference, mask, name="labels"):
    node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", name)
    node.SetIJKToRASMatrix(to_vtk(ijk_to_world_ras(reference)))
    write_voxels(node, mask.astype(np.int16))
    return node


def segmentation_of(scene, reference, *masks):
    """A segmentation with a segment for each mask, as Slicer's own import makes it."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segments")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    for number, mask in enumerate(masks):
        labels = labels_at(scene, reference, mask, f"part {number}")
        slicer.vtkSlicerSegmentationsModuleLogic.ImportLabelmapToSegmentationNode(labels, node)
        scene.RemoveNode(labels)
    return node


def block(shape, *sides):
    mask = np.zeros(shape, bool)
    mask[sides] = True
    return mask


# boxes


def test_a_box_along_the_grid(scene):
    reference = make_volume(scene)
    first, last = place_of(reference, (3, 10, 5)), place_of(reference, (6, 20, 14))
    roi = make_roi(scene, (first + last) / 2, np.abs(last - first) + 0.1)
    assert np.array_equal(region_mask(roi, reference), block(SHAPE, slice(3, 7), slice(10, 21), slice(5, 15)))
    found = region_on(roi, reference)
    assert (found.start, found.inside.shape) == ((3, 10, 5), (4, 11, 10))


@given(
    angles=st.tuples(*[st.floats(-80, 80)] * 3),
    image_angles=st.tuples(*[st.floats(-40, 40)] * 3),
    size=st.tuples(*[st.floats(5, 30)] * 3),
    shift=st.tuples(*[st.floats(-10, 10)] * 3),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_turned_box_under_a_transform_marks_what_slicer_says_lies_in_it(scene, angles, image_angles, size, shift):
    """Against the ROI's own test of points, away from its faces."""
    reference = make_volume(scene, (6, 20, 15), turned(*image_angles), spacing=(1.3, 0.9, 3.5))
    middle = place_of(reference, (2.5, 9.5, 7))
    matrix = np.eye(4)
    matrix[:3, :3] = turned(*angles[::-1])
    matrix[:3, 3] = 5, -3, 8
    inner = np.linalg.inv(matrix) @ (*(middle + shift), 1)
    roi = make_roi(scene, inner[:3], size, turned(*angles))
    moved(scene, roi, matrix)
    points = centers(reference)
    local = points @ np.linalg.inv(to_numpy(roi.GetObjectToWorldMatrix())).T
    depth = np.abs(local[..., :3]) - np.array(size) / 2
    clear = np.abs(depth).min(axis=-1) > 1e-3
    expected = np.array([roi.IsPointInROIWorld(point[:3]) for point in points.reshape(-1, 4)]).reshape(clear.shape)
    step = np.linalg.inv(to_numpy(roi.GetObjectToWorldMatrix())) @ ijk_to_world_ras(reference)
    assume(expected.any() and (np.array(size) >= np.abs(step[:3, :3]).max(axis=1)).all())
    assert np.array_equal(region_mask(roi, reference)[clear], expected[clear])


def test_a_box_under_a_scaling_transform_is_as_large_as_it_is_drawn(scene):
    """Slicer draws it scaled; its own test of points leaves the scale out."""
    reference = make_volume(scene, (40, 40, 40), spacing=(1, 1, 1), origin=(0, 0, 0))
    roi = make_roi(scene, (0, 0, 0), (10, 10, 10))
    matrix = np.diag((2.0, 0.5, 1.0, 1.0))
    matrix[:3, 3] = place_of(reference, (20, 20, 20))
    moved(scene, roi, matrix)
    extent = [np.ptp(np.flatnonzero(region_mask(roi, reference).any(axis=axes))) for axes in ((0, 1), (0, 2), (1, 2))]
    bounds = [0.0] * 6
    roi.GetRASBounds(bounds)
    assert extent == [20, 4, 10]
    assert np.diff(bounds)[::2] == pytest.approx([20, 5, 10])


def test_the_image_may_stand_under_a_transform(scene):
    reference = make_volume(scene)
    matrix = np.eye(4)
    matrix[:3, 3] = 100, 0, 0
    moved(scene, reference, matrix)
    roi = make_roi(scene, place_of(reference, (5, 20, 15)), (3, 3, 7))
    assert region_mask(roi, reference)[5, 20, 15]


def test_a_box_thinner_than_a_voxel_marks_its_layer(scene):
    reference = make_volume(scene)
    roi = make_roi(scene, place_of(reference, (4.3, 20, 15)), (9, 9, 0.2))
    assert np.flatnonzero(region_mask(roi, reference).any(axis=(1, 2))).tolist() == [4]


FLAT = (1, 60, 50)


@pytest.mark.parametrize("depth", [0.0, 0.5, 40.0])
@pytest.mark.parametrize("beside", [0.0, 0.3, -25.0, 200.0])
def test_on_a_radiograph_a_box_counts_by_what_it_covers_in_the_plane(scene, depth, beside):
    reference = make_volume(scene, FLAT, spacing=(0.4, 0.4, 1.0))
    first, last = place_of(reference, (0, 10, 5)), place_of(reference, (0, 25, 20))
    roi = make_roi(scene, (first + last) / 2 + (0, 0, beside), (*(np.abs(last - first)[:2] + 0.1), depth))
    assert np.array_equal(region_mask(roi, reference), block(FLAT, 0, slice(10, 26), slice(5, 21)))


def test_a_turned_box_that_the_radiograph_cuts_marks_the_cut(scene):
    """A cube standing on its edge: the plane through its middle cuts it in a band, its shadow is the same band."""
    reference = make_volume(scene, FLAT, spacing=(1, 1, 1), origin=(0, 0, 0))
    middle = place_of(reference, (0, 30, 25))
    upright = region_mask(make_roi(scene, middle, (20, 20, 20), turned(0, 45, 0)), reference)
    rows, columns = np.nonzero(upright[0])
    assert np.ptp(rows) == 20
    assert np.ptp(columns) == 2 * int(np.hypot(10, 10))
    aside = make_roi(scene, np.add(middle, (0, 0, 60)), (20, 20, 20), turned(0, 45, 0))
    assert np.array_equal(region_mask(aside, reference), upright)
    higher = region_mask(make_roi(scene, np.add(middle, (0, 0, 10)), (20, 20, 20), turned(0, 45, 0)), reference)
    assert np.ptp(np.nonzero(higher[0])[1]) == 2 * int(np.hypot(10, 10) - 10), "the cut, not the shadow"


def test_a_radiograph_that_hangs_upright(scene):
    """Coronal plane: the slice axis points from front to back."""
    coronal = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    reference = make_volume(scene, FLAT, coronal, spacing=(0.5, 0.5, 1.0))
    first, last = place_of(reference, (0, 10, 5)), place_of(reference, (0, 25, 20))
    roi = make_roi(scene, (first + last) / 2 + (0, 70, 0), np.abs(last - first) + 0.1)
    assert np.array_equal(region_mask(roi, reference), block(FLAT, 0, slice(10, 26), slice(5, 21)))


# segments and label maps


def test_a_segment(scene):
    reference = make_volume(scene, direction=turned(10, 20, 30))
    mask = block(SHAPE, slice(2, 5), slice(8, 19), slice(4, 9))
    node = segmentation_of(scene, reference, mask)
    assert node.GetSegmentation().GetSourceRepresentationName() == "Binary labelmap"
    assert np.array_equal(region_mask(node, reference), mask)


def test_visible_segments_count_and_one_can_be_asked_for(scene):
    reference = make_volume(scene)
    first = block(SHAPE, slice(2, 5), slice(8, 19), slice(4, 9))
    second = block(SHAPE, 8, slice(30, 35), slice(20, 28))
    node = segmentation_of(scene, reference, first, second)
    names = [node.GetSegmentation().GetNthSegmentID(number) for number in range(2)]
    assert np.array_equal(region_mask(node, reference), first | second)
    assert np.array_equal(region_mask(node, reference, names[1]), second)
    node.GetDisplayNode().SetSegmentVisibility(names[1], False)
    assert np.array_equal(region_mask(node, reference), first)
    assert np.array_equal(region_mask(node, reference, names[1]), second), "asked for by name"
    node.GetDisplayNode().SetSegmentVisibility(names[0], False)
    with pytest.raises(UsageError, match="Show the segment"):
        region_on(node, reference)
    with pytest.raises(UsageError, match="no segment 'third'"):
        region_on(node, reference, "third")


def test_a_segment_under_a_transform_on_another_grid(scene):
    """Drawn on a coarse scan and carried to a fine one: every voxel takes the nearest."""
    coarse = make_volume(scene, (6, 10, 10), spacing=(4, 4, 6), origin=(0, 0, 0), name="coarse")
    fine = make_volume(scene, (36, 40, 40), spacing=(1, 1, 1), origin=(-1.5 + 8, -1.5, -2.5), name="fine")
    node = segmentation_of(scene, coarse, block((6, 10, 10), 3, slice(2, 5), slice(4, 6)))
    matrix = np.eye(4)
    matrix[0, 3] = -8  # RAS: 8 mm to the left in LPS
    moved(scene, node, matrix)
    assert np.array_equal(region_mask(node, fine), block((36, 40, 40), slice(18, 24), slice(8, 20), slice(16, 24)))


def surface_node(scene, polydata):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "surface")
    node.CreateDefaultDisplayNodes()
    node.SetSourceRepresentationToClosedSurface()
    node.AddSegmentFromClosedSurfaceRepresentation(polydata, "ball", [1.0, 0.0, 0.0])
    return node


def test_a_closed_surface(scene):
    reference = make_volume(scene, direction=turned(0, 0, 20))
    middle = place_of(reference, (6, 20, 15))
    ball = vtkSphereSource()
    ball.SetCenter(*middle)
    ball.SetRadius(8)
    ball.SetThetaResolution(60)
    ball.SetPhiResolution(60)
    ball.Update()
    node = surface_node(scene, ball.GetOutput())
    mask = region_mask(node, reference)
    distance = np.linalg.norm(centers(reference)[..., :3] - middle, axis=-1)
    assert mask[distance < 6.5].all()
    assert not mask[distance > 9.5].any()
    assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap"), "the user's node is left as it was"
    assert np.array_equal(region_mask(node, reference), mask)


def test_a_closed_surface_on_a_radiograph(scene):
    reference = make_volume(scene, FLAT, spacing=(1, 1, 1), origin=(0, 0, 0))
    cube = vtkCubeSource()
    cube.SetCenter(*place_of(reference, (0, 30, 25)))
    cube.SetXLength(10.2)
    cube.SetYLength(16.2)
    cube.SetZLength(9)
    cube.Update()
    mask = region_mask(surface_node(scene, cube.GetOutput()), reference)
    expected = block(FLAT, 0, slice(22, 39), slice(20, 31))
    assert (mask & expected).sum() / (mask | expected).sum() > 0.85, "Slicer fills surfaces to about half a voxel"


def test_a_label_map(scene):
    reference = make_volume(scene, direction=turned(30, 0, 10))
    mask = block(SHAPE, slice(0, 5), slice(0, 19), slice(4, 30))
    assert np.array_equal(region_mask(labels_at(scene, reference, mask * 3), reference), mask)


def test_a_label_map_that_is_larger_than_the_image(scene):
    reference = make_volume(scene, (4, 6, 5), spacing=(1, 1, 1), origin=(0, 0, 0))
    around = make_volume(scene, (8, 12, 10), spacing=(1, 1, 1), origin=(-2, -3, -2), name="around")
    mask = np.ones((8, 12, 10), bool)
    assert region_mask(labels_at(scene, around, mask), reference).all()


# errors


def test_what_is_no_region(scene):
    reference = make_volume(scene)
    with pytest.raises(UsageError, match=r"no region\. Draw a box"):
        region_on(None, reference)
    with pytest.raises(UsageError, match="'CT' is no region"):
        region_on(reference, reference)
    with pytest.raises(UsageError, match="no image"):
        region_on(make_roi(scene, (0, 0, 0), (1, 1, 1)), None)


def test_empty_regions(scene):
    reference = make_volume(scene)
    with pytest.raises(UsageError, match="'CT region' is empty"):
        region_on(make_region(scene, reference), reference)
    with pytest.raises(UsageError, match="is empty"):
        region_on(make_roi(scene, (0, 0, 0), (5, 0, 0)), reference)
    with pytest.raises(UsageError, match="Draw a segment"):
        region_on(segmentation_of(scene, reference), reference)
    node = segmentation_of(scene, reference, block(SHAPE, 2, 3, 4))
    node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap").GetPointData().GetScalars().Fill(0)
    with pytest.raises(UsageError, match="'segments' is empty"):
        region_on(node, reference)
    with pytest.raises(UsageError, match="is empty"):
        region_on(labels_at(scene, reference, np.zeros(SHAPE, bool)), reference)
    with pytest.raises(UsageError, match="'labels' is empty"):
        region_on(scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels"), reference)


def test_regions_beside_the_image(scene):
    reference = make_volume(scene)
    far = make_volume(scene, origin=(500.0, 0.0, 0.0), name="far")
    mask = block(SHAPE, slice(2, 5), slice(8, 19), slice(4, 9))
    for region in (
        make_roi(scene, place_of(far, (5, 5, 5)), (5, 5, 5)),
        segmentation_of(scene, far, mask),
        labels_at(scene, far, mask),
    ):
        with pytest.raises(UsageError, match="outside the image 'CT'"):
            region_on(region, reference)
    flat = make_volume(scene, FLAT, name="radiograph")
    with pytest.raises(UsageError, match="outside the image 'radiograph'"):
        region_on(make_roi(scene, place_of(far, (0, 0, 0)), (5, 5, 5)), flat)


# agreement


def test_a_heat_map_and_a_box(scene, heat_maps, prediction):
    reference = make_volume(scene)
    maps, index = heat_maps(SHAPE, (6, 3, 2))
    add_prediction(scene, prediction().with_maps(maps), reference)
    roi = make_roi(scene, place_of(reference, index), (9, 12, 12))
    found = compare_with_region(scene, reference, "pneumonia", roi, 0.4)
    assert found.pointing
    mask, heat = region_mask(roi, reference), maps.on_image("pneumonia")
    assert found.overlap == pytest.approx(overlap(heat, mask, 0.4), abs=1e-3)
    assert found.mass == pytest.approx(relevance_mass(heat, mask), abs=1e-5)
    assert found.overlap > found.chance_overlap
    assert found.mass > found.area
    aside = make_roi(scene, place_of(reference, (1, 36, 27)), (4, 4, 6))
    assert not compare_with_region(scene, reference, "pneumonia", aside, 0.4).pointing


def test_agreement_of_a_slot(scene, heat_maps, prediction):
    reference = make_volume(scene)
    first, index = heat_maps(SHAPE, (6, 3, 2))
    second, other = heat_maps(SHAPE, (1, 5, 5))
    add_prediction(scene, prediction().with_maps(first), reference)
    add_prediction(scene, prediction().with_maps(second), reference, slot="image only")
    roi = make_roi(scene, place_of(reference, other), (5, 5, 6))
    assert not compare_with_region(scene, reference, "pneumonia", roi).pointing
    assert compare_with_region(scene, reference, "pneumonia", roi, slot="image only").pointing
    assert index != other


def test_no_heat_maps(scene):
    reference = make_volume(scene)
    with pytest.raises(UsageError, match="Run the model"):
        compare_with_region(scene, reference, "pneumonia", make_roi(scene, (0, 0, 0), (5, 5, 5)))
