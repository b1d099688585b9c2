"""Which slice of a volume the slice views show."""

from __future__ import annotations

import numpy as np

from .geometry import ijk_to_world_ras, to_numpy
from .nodes import Node, Scene
from .views import composites, slice_node_of


def slice_view_nodes(scene: Scene, reference: Node) -> list[Node]:
    """Slice nodes of the views that have the image as their background."""
    showing = (node for node in composites(scene) if node.GetBackgroundVolumeID() == reference.GetID())
    nodes = (slice_node_of(scene, composite) for composite in showing)
    return [node for node in nodes if node is not None]


def current_slice(scene: Scene, reference: Node) -> int | None:
    """The image's slice that is shown by the view that looks most nearly along the image's slice axis.

    Args:
        scene: vtkMRMLScene.
        reference: Volume node.

    Returns:
        Slice index; None where no view shows the image, or the one that does is beside it.

    Raises:
        ReadError: The image stands under a transform that is not linear.
    """
    matrix = ijk_to_world_ras(reference)
    normal = np.cross(matrix[:3, 0], matrix[:3, 1])
    best: tuple[float, int] | None = None
    inverse = np.linalg.inv(matrix)
    first, last = reference.GetImageData().GetExtent()[4:6]
    for node in slice_view_nodes(scene, reference):
        view = to_numpy(node.GetSliceToRAS())
        along = abs(float(view[:3, 2] @ normal)) / float(np.linalg.norm(normal))
        index = round(float((inverse @ view[:, 3])[2]))
        if first <= index <= last and (best is None or along > best[0] + 1e-6):
            best = along, index - first
    return None if best is None else best[1]
