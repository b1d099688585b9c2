"""A reader's last review of an image in the scene, so that it is saved with it."""

from __future__ import annotations

import json
from typing import Any

from vtkmodules.vtkCommonCore import VTK_ENCODING_UTF_8

from .nodes import Node, Scene, ensure_node, find_node

REVIEW = "review"


def store_review(scene: Scene, text: str, reference: Node) -> Node:
    """Keep the JSON of a `report.review.Review` in a text node beside the image, in place of an earlier one.

    Returns:
        vtkMRMLTextNode, one an image.
    """
    node = ensure_node(scene, "vtkMRMLTextNode", REVIEW, reference)
    node.SetText(text, VTK_ENCODING_UTF_8)
    return node


def stored_review(scene: Scene, reference: Node) -> dict[str, Any] | None:
    """The review that is kept for an image as its JSON's plain values; None if there is none that can be read."""
    node = find_node(scene, "vtkMRMLTextNode", REVIEW, reference)
    try:
        review = json.loads(node.GetText()) if node is not None else None
    except (TypeError, ValueError):  # changed by hand, or cut
        return None
    return review if isinstance(review, dict) else None
