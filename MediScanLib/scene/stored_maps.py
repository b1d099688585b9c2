"""Heat maps of all findings in the scene, so that the finding can still be changed after saving and loading.

The maps stay on the network's coarse grid: a few hundred kilobytes for a volume.
"""

from __future__ import annotations

from ..prediction.heatmaps import HeatMaps
from .nodes import Node, Scene, ensure_node, find_node

HEAT_MAPS = "heat maps"


def store_maps(scene: Scene, maps: HeatMaps, reference: Node, slot: str = "") -> Node:
    """Keep heat maps in a text node beside the image.

    Returns:
        vtkMRMLTextNode, one an image and slot, hidden from the lists of nodes since it is not for reading.
    """
    node = ensure_node(scene, "vtkMRMLTextNode", HEAT_MAPS, reference, slot)
    node.SetHideFromEditors(True)
    node.SetText(maps.to_json())
    return node


def stored_maps(scene: Scene, reference: Node, slot: str = "") -> HeatMaps | None:
    """The heat maps that are kept for an image; None if there are none, or none that can be read."""
    node = find_node(scene, "vtkMRMLTextNode", HEAT_MAPS, reference, slot)
    if node is None or not node.GetText():
        return None
    try:
        return HeatMaps.from_json(node.GetText())
    except ValueError:
        return None
