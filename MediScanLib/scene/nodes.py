"""The nodes that MediScan puts into a scene: one of each kind an image and slot, found again in a loaded scene."""

from __future__ import annotations

from typing import Any

ROLE = "MediScan.Role"
"""Node attribute that says what a node of ours is."""

REFERENCE = "MediScanReference"
"""Node reference role that points from a node of ours to the image it belongs to."""

SLOT = "MediScan.Slot"
"""Node attribute that tells results beside the first ones apart, such as those of another model; "" for the first.

A slot is a short name that people can read, since it stands in the names of the nodes.
"""

# MRML wrappers carry no types, so nodes and scenes are Any throughout this room.
Node = Any
Scene = Any


def find_node(scene: Scene, class_name: str, role: str, reference: Node, slot: str = "") -> Node | None:
    """Our node of that role and slot for that image, None if there is none."""
    for number in range(scene.GetNumberOfNodesByClass(class_name)):
        node = scene.GetNthNodeByClass(number, class_name)
        if (
            node.GetAttribute(ROLE) == role
            and slot_of(node) == slot
            and node.GetNodeReferenceID(REFERENCE) == reference.GetID()
        ):
            return node
    return None


def ensure_node(scene: Scene, class_name: str, role: str, reference: Node, slot: str = "") -> Node:
    """Our node of that role and slot, made if there is none, beside the image in the subject hierarchy."""
    node = find_node(scene, class_name, role, reference, slot)
    if node is None:
        node = scene.AddNewNodeByClass(class_name, f"{reference.GetName()} {role}{in_slot(slot)}")
        node.SetAttribute(ROLE, role)
        if slot:
            node.SetAttribute(SLOT, slot)
        node.SetNodeReferenceID(REFERENCE, reference.GetID())
    place_beside(scene, node, reference)
    return node


def slot_of(node: Node) -> str:
    """The slot of a node of ours."""
    return node.GetAttribute(SLOT) or ""


def in_slot(slot: str) -> str:
    """How the slot stands in the name of a node: in parentheses at its end, not at all for the first."""
    return f" ({slot})" if slot else ""


def slots_of(scene: Scene, class_name: str, role: str, reference: Node) -> tuple[str, ...]:
    """Slots that hold a node of that role for that image, the first slot "" included."""
    nodes = (scene.GetNthNodeByClass(n, class_name) for n in range(scene.GetNumberOfNodesByClass(class_name)))
    return tuple(
        slot_of(node)
        for node in nodes
        if node.GetAttribute(ROLE) == role and node.GetNodeReferenceID(REFERENCE) == reference.GetID()
    )


def reference_of(node: Node) -> Node | None:
    """The image that a node of ours belongs to."""
    return node.GetNodeReference(REFERENCE)


def is_ours(node: Node) -> bool:
    """True for a node that MediScan made, such as a heat map, which is no image to look at."""
    return node.GetAttribute(ROLE) is not None


def place_beside(scene: Scene, node: Node, reference: Node) -> None:
    """Put a node under the same study (or folder) as the reference in the subject hierarchy."""
    hierarchy = scene.GetSubjectHierarchyNode()
    if hierarchy is None:
        return
    reference_item = hierarchy.GetItemByDataNode(reference)
    parent = hierarchy.GetItemParent(reference_item) if reference_item else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node)
    if not item:  # outside the application nobody makes items for new nodes
        hierarchy.CreateItem(parent, node)
    elif hierarchy.GetItemParent(item) != parent:
        hierarchy.SetItemParent(item, parent)


def remove_with_belongings(scene: Scene, node: Node) -> None:
    """Remove a node together with its display and storage nodes and its place in the subject hierarchy."""
    hierarchy = scene.GetSubjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
    if hierarchy is not None and item:
        hierarchy.RemoveItem(item, False, False)
    belongings = []
    if node.IsA("vtkMRMLDisplayableNode"):
        belongings += [node.GetNthDisplayNode(number) for number in range(node.GetNumberOfDisplayNodes())]
    if node.IsA("vtkMRMLStorableNode"):
        belongings += [node.GetNthStorageNode(number) for number in range(node.GetNumberOfStorageNodes())]
    for belonging in [*belongings, node]:
        if belonging is not None:
            scene.RemoveNode(belonging)
