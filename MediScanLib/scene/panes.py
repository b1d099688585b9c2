"""What stands beside what: the two panes of each comparison, made from what the scene holds for an image."""

from __future__ import annotations

import slicer

from ..errors import UsageError
from .comparison import Pane
from .nodes import Node, Scene
from .overlay import find_overlay, make_overlay
from .results import find_findings, shown_summary, stored_fields
from .stored_maps import stored_maps
from .style import Style, style_of

IMAGE_ONLY = "image only"
"""Slot of a prediction that was made without clinical values."""

SECOND_FINDING = "finding b"
"""Slot of an overlay alone: another finding of the image's first results."""

Panes = tuple[Pane, Pane]


def panes_original(
    scene: Scene, reference: Node, finding: str, *, slot: str = "", style: Style | None = None
) -> Panes:
    """The image alone, and with the heat map of a finding.

    Args:
        scene: vtkMRMLScene.
        reference: Image volume node with results.
        finding: Finding.
        slot: Slot of the results, see `nodes.SLOT`.
        style: How heat maps are drawn; without it as the image's heat map is drawn by now.

    Raises:
        UsageError: There are no results, or no heat map of the finding: the message says what to do.
    """
    overlay = _overlay(scene, reference, finding, slot, style)
    return Pane(reference, None, "original"), Pane(reference, overlay, _found(scene, reference, finding, slot))


def panes_findings(scene: Scene, reference: Node, first: str, second: str, *, style: Style | None = None) -> Panes:
    """Heat maps of two findings of one prediction. See `panes_original` for arguments and errors."""
    if first == second:
        raise UsageError(f"Both sides would show {first!r}. Choose another finding for one of them.")
    left = _overlay(scene, reference, first, "", style)
    right = _overlay(scene, reference, second, SECOND_FINDING, style)
    return (
        Pane(reference, left, _found(scene, reference, first, "")),
        Pane(reference, right, _found(scene, reference, second, "")),
    )


def panes_models(scene: Scene, reference: Node, finding: str, slot: str, *, style: Style | None = None) -> Panes:
    """Heat maps of one finding by two models: the image's first results and those of a slot.

    See `panes_original` for arguments and errors.
    """
    _need_slot(scene, reference, slot, f"Run the other model on {_name(reference)} first.")
    labels = [f"{_model(scene, reference, of)}: {_found(scene, reference, finding, of)}" for of in ("", slot)]
    return _both(scene, reference, finding, slot, labels, style)


def panes_methods(scene: Scene, reference: Node, finding: str, slot: str, *, style: Style | None = None) -> Panes:
    """Heat maps of one finding by two ways of explaining it: the image's first results and those of a slot.

    See `panes_original` for arguments and errors.
    """
    _need_slot(scene, reference, slot, f"Explain {_name(reference)} by the other method first.")
    found = _found(scene, reference, finding, "")
    labels = [f"{_method(scene, reference, of)}: {found}" for of in ("", slot)]
    return _both(scene, reference, finding, slot, labels, style)


def panes_image_only(
    scene: Scene, reference: Node, finding: str, slot: str = IMAGE_ONLY, *, style: Style | None = None
) -> Panes:
    """Heat maps of one finding with and without clinical values. See `panes_original` for arguments and errors."""
    _need_slot(scene, reference, slot, f"Run the model on {_name(reference)} without clinical values first.")
    known = shown_summary(scene, reference)["clinical"].removesuffix(" known") or "clinical values"
    labels = [
        f"with {known}: {_found(scene, reference, finding, '')}",
        f"image only: {_found(scene, reference, finding, slot)}",
    ]
    return _both(scene, reference, finding, slot, labels, style)


def panes_prior(scene: Scene, current: Node, prior: Node, finding: str, *, style: Style | None = None) -> Panes:
    """An earlier image of the patient on the left, the current one on the right, each with its own heat map.

    See `panes_original` for arguments and errors.
    """
    if prior is None or current is None:
        raise UsageError("There is no earlier image. Load it, run the model on it and choose it.")
    if prior is current:
        raise UsageError(f"{_name(current)} would stand beside itself. Choose an earlier image of the patient.")
    panes = [
        Pane(
            reference,
            _overlay(scene, reference, finding, "", style),
            f"{' '.join(part for part in (time, study_date(reference)) if part)}: "
            f"{_found(scene, reference, finding, '')}",
        )
        for time, reference in (("prior", prior), ("current", current))
    ]
    return panes[0], panes[1]


def panes_region(
    scene: Scene, reference: Node, finding: str, region: Node, *, slot: str = "", style: Style | None = None
) -> Panes:
    """The image with a reader's region on the left, the heat map of a finding on the right.

    A box or a segmentation is drawn by its own display, which shows it over the heat map too; a label map comes as the
    label layer of the left view. See `panes_original` for arguments and errors.
    """
    if region is None:
        raise UsageError("There is no region. Draw a box (ROI) or a segment on the image and choose it.")
    labels = region if region.IsA("vtkMRMLLabelMapVolumeNode") else None
    overlay = _overlay(scene, reference, finding, slot, style)
    return (
        Pane(reference, labels, f"reader: {region.GetName()}"),
        Pane(reference, overlay, _found(scene, reference, finding, slot)),
    )


def study_date(reference: Node) -> str:
    """Date of an image's study as YYYY-MM-DD, from the subject hierarchy, where the DICOM module leaves it."""
    hierarchy = reference.GetScene().GetSubjectHierarchyNode()
    if hierarchy is None:
        return ""
    key = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMAttributePrefix() + "StudyDate"
    item = hierarchy.GetItemByDataNode(reference)
    while item and item != hierarchy.GetSceneItemID():
        date = hierarchy.GetItemAttribute(item, key)
        if len(date) == 8 and date.isdecimal():
            return f"{date[:4]}-{date[4:6]}-{date[6:]}"
        item = hierarchy.GetItemParent(item)
    return ""


def _both(scene: Scene, reference: Node, finding: str, slot: str, labels: list[str], style: Style | None) -> Panes:
    left = _overlay(scene, reference, finding, "", style)
    right = _overlay(scene, reference, finding, slot, style)
    return Pane(reference, left, labels[0]), Pane(reference, right, labels[1])


def _overlay(scene: Scene, reference: Node, finding: str, slot: str, style: Style | None) -> Node:
    """The overlay of a finding in a slot, drawn like the image's first, so that only the values differ."""
    if reference is None:
        raise UsageError("There is no image to compare. Choose one and run the model on it.")
    of_slot = "" if slot == SECOND_FINDING else slot
    maps = stored_maps(scene, reference, of_slot)
    if maps is None:
        raise UsageError(f"There are no heat maps for {_name(reference)}{_of(of_slot)}. Run the model on it first.")
    if finding not in maps.labels:
        raise UsageError(
            f"There is no heat map of {finding!r} for {_name(reference)}{_of(of_slot)}. Choose one of "
            f"{', '.join(maps.labels)}."
        )
    first = find_overlay(scene, reference)
    drawn = style or (style_of(first) if first is not None else Style())
    return make_overlay(scene, maps, finding, reference, drawn, slot=slot)


def _method(scene: Scene, reference: Node, slot: str) -> str:
    """How the heat maps of a slot were made."""
    maps = (stored_fields(scene, reference, slot) or {}).get("heat_maps") or [{}]
    return str(maps[0].get("method", "gradcam"))


def _need_slot(scene: Scene, reference: Node, slot: str, remedy: str) -> None:
    if reference is None or not slot or find_findings(scene, reference, slot) is None:
        raise UsageError(f"There are no second results to compare with{_of(slot)}. {remedy}")


def _found(scene: Scene, reference: Node, finding: str, slot: str) -> str:
    """The finding with its probability, as far as the table tells it."""
    table = find_findings(scene, reference, slot)
    if table is None:
        return finding
    for row in range(table.GetNumberOfRows()):
        if table.GetCellText(row, 0) == finding:
            return f"{finding} {float(table.GetCellText(row, 1)):.2f}"
    return finding


def _model(scene: Scene, reference: Node, slot: str) -> str:
    """Name and version of the model that made the results of a slot."""
    return shown_summary(scene, reference, slot)["model"].rpartition(" on ")[0] or slot or "model"


def _of(slot: str) -> str:
    return f" in {slot!r}" if slot else ""


def _name(reference: Node) -> str:
    return repr(reference.GetName()) if reference is not None else "the image"
