"""Color nodes for heat maps."""

from __future__ import annotations

from collections.abc import Iterable

from ..prediction.colormaps import COLOR_MAPS, color_table
from .nodes import Node, Scene
from .outline import EDGE

__all__ = ["COLOR_MAPS", "color_node", "outline_color_node"]

OUTLINE_COLORS = 20
"""Entries of an outline's table: enough for edges of the right width."""


def color_node(scene: Scene, name: str) -> Node:
    """The application's own color node of a color map ("inferno", "viridis"...), or one made where there is none."""
    title = name.title()
    node = scene.GetNodeByID(f"vtkMRMLColorTableNodeFile{title}.txt")
    if node is not None:
        return node
    table = color_table(name) / 255
    return _table(
        scene, title, ((f"{at / (len(table) - 1):.3f}", color) for at, color in enumerate(table)), len(table)
    )


def outline_color_node(scene: Scene, name: str) -> Node:
    """Colors across an outline: the map's brightest for the line, its darkest for the edges.

    A line in one bright color shows on dark lungs, its dark edges keep it apart from bright bones.
    """
    table = color_table(name) / 255
    edge = round(OUTLINE_COLORS * EDGE / 2)
    across = [table[0] if min(at, OUTLINE_COLORS - 1 - at) < edge else table[-1] for at in range(OUTLINE_COLORS)]
    return _table(scene, f"{name.title()} Outline", (("", color) for color in across), OUTLINE_COLORS)


def _table(scene: Scene, title: str, entries: Iterable[tuple[str, Iterable[float]]], size: int) -> Node:
    tag = f"MediScan{title.replace(' ', '')}"
    node = scene.GetSingletonNode(tag, "vtkMRMLColorTableNode")
    if node is not None:
        return node
    node = scene.CreateNodeByClass("vtkMRMLColorTableNode")
    node.UnRegister(None)
    node.SetSingletonTag(tag)
    node.SetName(title)
    node.SetTypeToUser()
    node.SetNumberOfColors(size)
    for position, (label, color) in enumerate(entries):
        node.SetColor(position, label, *color, 1.0)
    return scene.AddNode(node)
