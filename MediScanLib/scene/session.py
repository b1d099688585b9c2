"""What a panel or a script does with an image in a scene: put a prediction in, show a heat map, see what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import UsageError
from .header import header_facts
from .nodes import Node, Scene, is_ours
from .overlay import FINDING, find_overlay, make_overlay, needs_maps, restyle, set_visible
from .results import find_findings, show_findings, shown_summary, store_prediction
from .stored_maps import store_maps, stored_maps
from .style import Style, style_of
from .views import jump_to

if TYPE_CHECKING:
    from ..prediction.result import Prediction

__all__ = [
    "Results",
    "Style",
    "add_prediction",
    "first_image",
    "results_of",
    "show_heat_map",
    "stated_values",
    "style_heat_map",
    "style_of",
]


@dataclass(frozen=True)
class Results:
    """What the scene holds for an image.

    Attributes:
        table: Table node of findings, None before a prediction.
        summary: Severity, certainty, clinical values and model in one line each.
        findings: Findings that have a heat map, most probable first.
        shown: Finding whose heat map is made; empty if none is.
    """

    table: Node | None = None
    summary: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    shown: str = ""


def first_image(scene: Scene) -> Node | None:
    """The volume to begin with: the active one if it is an image, else the first that is; None if there is none.

    The active volume is the one that the application shows by default: the selection node's, which loading a volume
    and showing one from the Data module set. An image is a volume with voxels that is no label map and not ours.
    """
    selection = scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    active = scene.GetNodeByID(selection.GetActiveVolumeID() or "") if selection is not None else None
    if active is not None and _is_image(active):
        return active
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLScalarVolumeNode")
        if _is_image(node):
            return node
    return None


def _is_image(node: Node) -> bool:
    return (
        node.IsA("vtkMRMLScalarVolumeNode")
        and not node.IsA("vtkMRMLLabelMapVolumeNode")
        and not is_ours(node)
        and node.GetImageData() is not None
    )


def stated_values(reference: Node | None) -> dict[str, float | str]:
    """Clinical values that the image's header states, by field name."""
    if reference is None or reference.GetImageData() is None:
        return {}
    return dict(header_facts(reference).get("prefill", {}))


def add_prediction(scene: Scene, prediction: Prediction, reference: Node, *, slot: str = "") -> None:
    """Put findings, prediction and heat maps beside the image, in place of older ones of the same slot."""
    show_findings(scene, prediction, reference, slot)
    store_prediction(scene, prediction, reference, slot)
    if prediction.maps is not None:
        store_maps(scene, prediction.maps, reference, slot)


def results_of(scene: Scene, reference: Node | None, *, slot: str = "") -> Results:
    """What the scene holds for an image in a slot; works on a loaded scene too."""
    table = find_findings(scene, reference, slot) if reference is not None else None
    if table is None:
        return Results()
    maps = stored_maps(scene, reference, slot)
    labels = [table.GetCellText(row, 0) for row in range(table.GetNumberOfRows())]
    overlay = find_overlay(scene, reference, slot)
    return Results(
        table=table,
        summary=shown_summary(scene, reference, slot),
        findings=tuple(label for label in labels if maps is not None and label in maps.labels),
        shown=(overlay.GetAttribute(FINDING) or "") if overlay is not None else "",
    )


def show_heat_map(
    scene: Scene,
    reference: Node | None,
    finding: str,
    style: Style | None = None,
    *,
    jump: bool = False,
    slot: str = "",
) -> tuple[Node, bool]:
    """Show the heat map of a finding over its image.

    Args:
        scene: vtkMRMLScene.
        reference: Image volume node.
        finding: Finding.
        style: How it is drawn; without it as before, or the default. One that is not visible is made all the same.
        jump: Move the views that show the image to the hottest place.
        slot: Which of the image's results, see `nodes.SLOT`.

    Returns:
        The overlay, and True where a view got the image as its background and should be fitted to it.

    Raises:
        UsageError: There are no heat maps for this image, or none of that finding.
    """
    maps = stored_maps(scene, reference, slot) if reference is not None else None
    if maps is None:
        raise UsageError("There are no heat maps for this image. Run the model on it first.")
    if style is None:
        before = find_overlay(scene, reference, slot)
        style = style_of(before) if before is not None else Style()
    overlay = make_overlay(scene, maps, finding, reference, style, slot=slot)
    turned = set_visible(scene, overlay, reference, style.visible)
    if jump and style.visible:
        jump_to(scene, reference, maps.peak(finding)[1])
    return overlay, turned


def style_heat_map(scene: Scene, reference: Node | None, style: Style, *, slot: str = "") -> None:
    """Draw an image's heat map in another style; nothing happens where it has none.

    A threshold costs a change of the display, and with an outline the field of distances: both keep up with a slider.

    Args:
        scene: vtkMRMLScene.
        reference: Image volume node.
        style: How it is drawn from now on.
        slot: Which of the image's results, see `nodes.SLOT`.

    Raises:
        UsageError: The style asks for other voxels, and the heat maps are gone from the scene.
    """
    overlay = find_overlay(scene, reference, slot) if reference is not None else None
    if overlay is not None:
        maps = stored_maps(scene, reference, slot) if needs_maps(overlay, style) else None
        restyle(scene, maps, overlay, reference, style)
