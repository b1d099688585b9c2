"""Heat maps of all findings in the scene, so that the finding can still be changed after saving and loading.

The maps stay on the network's coarse grid: a few hundred kilobytes for a volume.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict

import numpy as np

from ..prediction.heatmaps import AxisMap, HeatMaps
from .nodes import Node, Scene, ensure_node, find_node

HEAT_MAPS = "heat maps"


def store_maps(scene: Scene, maps: HeatMaps, reference: Node) -> Node:
    """Keep heat maps in a text node beside the image.

    Returns:
        vtkMRMLTextNode, one an image, hidden from the lists of nodes since it is not for reading.
    """
    node = ensure_node(scene, "vtkMRMLTextNode", HEAT_MAPS, reference)
    node.SetHideFromEditors(True)
    content = {
        "labels": maps.labels,
        "grid": maps.values.shape,
        "values": base64.b64encode(maps.values.astype("<f4").tobytes()).decode("ascii"),
        "shape": maps.shape,
        "rows": asdict(maps.rows),
        "columns": asdict(maps.columns),
        "slices": asdict(maps.slices) if isinstance(maps.slices, AxisMap) else maps.slices,
        "scales": maps.scales,
    }
    node.SetText(json.dumps(content))
    return node


def stored_maps(scene: Scene, reference: Node) -> HeatMaps | None:
    """The heat maps that are kept for an image; None if there are none, or none that can be read."""
    node = find_node(scene, "vtkMRMLTextNode", HEAT_MAPS, reference)
    if node is None or not node.GetText():
        return None
    try:
        content = json.loads(node.GetText())
        values = np.frombuffer(base64.b64decode(content["values"], validate=True), dtype="<f4")
        slices = content["slices"]
        return HeatMaps(
            labels=tuple(content["labels"]),
            values=values.reshape(content["grid"]),
            shape=tuple(content["shape"]),
            rows=AxisMap(**content["rows"]),
            columns=AxisMap(**content["columns"]),
            slices=AxisMap(**slices) if isinstance(slices, dict) else tuple(slices),
            scales=tuple(content["scales"]),
        )
    except (ValueError, TypeError, KeyError, binascii.Error):
        return None
