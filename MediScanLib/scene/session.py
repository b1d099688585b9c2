"""What a panel or a script does with an image in a scene: put a prediction in, show a heat map, see what is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..errors import UsageError
from .header import header_facts
from .nodes import Node, Scene, is_ours
from .overlay import (
    DEFAULT_OPACITY,
    DEFAULT_THRESHOLD,
    FINDING,
    find_overlay,
    make_overlay,
    set_threshold,
    set_visible,
)
from .results import find_findings, show_findings, shown_summary, store_prediction
from .stored_maps import store_maps, stored_maps
from .views import jump_to

if TYPE_CHECKING:
    from ..prediction.result import Prediction


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
    """The first volume with voxels that is an image, no label map and no heat map; None if there is none."""
    for number in range(scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")):
        node = scene.GetNthNodeByClass(number, "vtkMRMLScalarVolumeNode")
        if not node.IsA("vtkMRMLLabelMapVolumeNode") and not is_ours(node) and node.GetImageData() is not None:
            return node
    return None


def stated_values(reference: Node | None) -> dict[str, float | str]:
    """Clinical values that the image's header states, by field name."""
    if reference is None or reference.GetImageData() is None:
        return {}
    return dict(header_facts(reference).get("prefill", {}))


def add_prediction(scene: Scene, prediction: Prediction, reference: Node) -> None:
    """Put findings, prediction and heat maps beside the image, in place of older ones."""
    show_findings(scene, prediction, reference)
    store_prediction(scene, prediction, reference)
    if prediction.maps is not None:
        store_maps(scene, prediction.maps, reference)


def results_of(scene: Scene, reference: Node | None) -> Results:
    """What the scene holds for an image; works on a loaded scene too."""
    table = find_findings(scene, reference) if reference is not None else None
    if table is None:
        return Results()
    maps = stored_maps(scene, reference)
    labels = [table.GetCellText(row, 0) for row in range(table.GetNumberOfRows())]
    overlay = find_overlay(scene, reference)
    return Results(
        table=table,
        summary=shown_summary(scene, reference),
        findings=tuple(label for label in labels if maps is not None and label in maps.labels),
        shown=(overlay.GetAttribute(FINDING) or "") if overlay is not None else "",
    )


def show_heat_map(
    scene: Scene,
    reference: Node | None,
    finding: str,
    *,
    visible: bool = True,
    opacity: float = DEFAULT_OPACITY,
    threshold: float = DEFAULT_THRESHOLD,
    jump: bool = False,
) -> tuple[Node, bool]:
    """Show the heat map of a finding over its image.

    Args:
        scene: vtkMRMLScene.
        reference: Image volume node.
        finding: Finding.
        visible: False to make it without showing it.
        opacity: See `show_overlay`.
        threshold: See `show_overlay`.
        jump: Move the views that show the image to the hottest place.

    Returns:
        The overlay, and True where a view got the image as its background and should be fitted to it.

    Raises:
        UsageError: There are no heat maps for this image, or none of that finding.
    """
    maps = stored_maps(scene, reference) if reference is not None else None
    if maps is None:
        raise UsageError("There are no heat maps for this image. Run the model on it first.")
    overlay = make_overlay(scene, maps, finding, reference)
    set_threshold(overlay, threshold)
    turned = set_visible(scene, overlay, reference, visible, opacity)
    if jump and visible:
        jump_to(scene, reference, maps.peak(finding)[1])
    return overlay, turned


def style_heat_map(scene: Scene, reference: Node | None, *, visible: bool, opacity: float, threshold: float) -> None:
    """Show or hide an image's heat map and set its opacity and threshold; nothing happens where it has none."""
    overlay = find_overlay(scene, reference) if reference is not None else None
    if overlay is not None:
        set_threshold(overlay, threshold)
        set_visible(scene, overlay, reference, visible, opacity)
