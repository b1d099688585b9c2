"""Color nodes for heat maps."""

from __future__ import annotations

from ..prediction.colormaps import COLOR_MAPS, color_table
from .nodes import Node, Scene

__all__ = ["COLOR_MAPS", "color_node"]


def color_node(scene: Scene, name: str) -> Node:
    """The application's own color node of a color map ("inferno", "viridis"), or one made where there is none."""
    title = name.capitalize()
    tag = f"MediScan{title}"
    node = scene.GetNodeByID(f"vtkMRMLColorTableNodeFile{title}.txt") or scene.GetSingletonNode(
        tag, "vtkMRMLColorTableNode"
    )
    if node is not None:
        return node
    node = scene.CreateNodeByClass("vtkMRMLColorTableNode")
    node.UnRegister(None)
    node.SetSingletonTag(tag)
    node.SetName(title)
    node.SetTypeToUser()
    table = color_table(name)
    node.SetNumberOfColors(len(table))
    for position, color in enumerate(table / 255):
        node.SetColor(position, f"{position / (len(table) - 1):.3f}", *color, 1.0)
    return scene.AddNode(node)
