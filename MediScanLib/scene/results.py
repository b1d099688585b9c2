"""The prediction in the scene: a table of findings for people, and its JSON, which is saved with the scene."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vtkmodules.vtkCommonCore import VTK_ENCODING_UTF_8, vtkDoubleArray, vtkStringArray

from .nodes import Node, Scene, ensure_node, find_node, remove_with_belongings, slots_of
from .overlay import HEAT_MAP, remove_overlay
from .slice_plot import remove_plot
from .stored_maps import HEAT_MAPS
from .stored_review import REVIEW

if TYPE_CHECKING:
    from ..prediction.result import Prediction

FINDINGS = "findings"
PREDICTION = "prediction"
SUMMARY_NAMES = ("severity", "certainty", "clinical", "model")
SUMMARY = "MediScan.Summary."
DIGITS = 4


def show_findings(scene: Scene, prediction: Prediction, reference: Node, slot: str = "") -> Node:
    """Fill the image's table of findings, most probable first.

    Columns: finding, probability, threshold, decision. Severity and certainty are not findings; they are in
    attributes of the node (`shown_summary`) and in the JSON.

    Returns:
        vtkMRMLTableNode, locked against editing, one an image and slot.
    """
    node = ensure_node(scene, "vtkMRMLTableNode", FINDINGS, reference, slot)
    was_modified = node.StartModify()
    node.SetLocked(False)
    node.RemoveAllColumns()
    ordered = sorted(prediction.findings, key=lambda finding: -finding.probability)
    node.AddColumn(_texts("Finding", [finding.label for finding in ordered]))
    node.AddColumn(_numbers("Probability", [finding.probability for finding in ordered]))
    node.AddColumn(_numbers("Threshold", [finding.threshold for finding in ordered]))
    node.AddColumn(_texts("Decision", [finding.decision for finding in ordered]))
    node.SetUseColumnTitleAsColumnHeader(True)
    for name, line in summary_lines(prediction).items():
        node.SetAttribute(SUMMARY + name, line)
    node.SetLocked(True)
    node.EndModify(was_modified)
    return node


def find_findings(scene: Scene, reference: Node, slot: str = "") -> Node | None:
    """The image's table of findings, None if there is none."""
    return find_node(scene, "vtkMRMLTableNode", FINDINGS, reference, slot)


def slots_with_results(scene: Scene, reference: Node) -> tuple[str, ...]:
    """Slots of the image's predictions, "" for the first: what there is to compare."""
    return slots_of(scene, "vtkMRMLTableNode", FINDINGS, reference)


def shown_summary(scene: Scene, reference: Node, slot: str = "") -> dict[str, str]:
    """What `summary_lines` said when the image's table was filled; empty texts where there is no table."""
    table = find_findings(scene, reference, slot)
    return {name: (table.GetAttribute(SUMMARY + name) or "") if table is not None else "" for name in SUMMARY_NAMES}


def summary_lines(prediction: Prediction) -> dict[str, str]:
    """Severity, certainty, clinical values and model in one line each, by `SUMMARY_NAMES`."""
    severity, certainty, clinical = prediction.severity, prediction.certainty, prediction.clinical
    if severity.applicable:
        said = [severity.grade or "", f"{severity.score:.2f} of 1" if severity.score is not None else ""]
        if severity.value is not None and severity.scale:
            said.append(f"{severity.value:.1f} on {severity.scale}")
        severity_text = ", ".join(part for part in said if part)
    else:
        severity_text = f"not applicable: {severity.reason}" if severity.reason else "not applicable"
    if certainty.deferred:
        certainty_text = "leave it to a human: " + " ".join(reason.message for reason in certainty.reasons)
    else:
        certainty_text = f"no reason to defer; most probable is {certainty.label}"
    if not all(finding.calibrated for finding in prediction.findings):
        certainty_text += " (probabilities are uncalibrated)"
    known = len(clinical.used)
    return {
        "severity": severity_text,
        "certainty": certainty_text,
        "clinical": f"{known} of {known + len(clinical.missing)} clinical values known",
        "model": f"{prediction.provenance.model} {prediction.provenance.model_version} on "
        f"{prediction.provenance.device}",
    }


def store_prediction(scene: Scene, prediction: Prediction, reference: Node, slot: str = "") -> Node:
    """Keep the prediction's JSON in a text node beside the image.

    Returns:
        vtkMRMLTextNode, one an image and slot.
    """
    node = ensure_node(scene, "vtkMRMLTextNode", PREDICTION, reference, slot)
    node.SetText(prediction.to_json(indent=1), VTK_ENCODING_UTF_8)
    return node


def stored_prediction(scene: Scene, reference: Node, slot: str = "") -> Prediction | None:
    """The prediction that is kept for an image, without its heat maps; None if there is none.

    Raises:
        pydantic.ValidationError: The text was changed and is no prediction any more.
    """
    from ..prediction.result import Prediction

    node = find_node(scene, "vtkMRMLTextNode", PREDICTION, reference, slot)
    return Prediction.from_json(node.GetText()) if node is not None and node.GetText() else None


def stored_fields(scene: Scene, reference: Node, slot: str = "") -> dict[str, Any] | None:
    """The prediction that is kept for an image as its JSON's plain values; None if there is none that can be read.

    Unlike `stored_prediction` this needs no package, so that a saved scene can be shown before any is installed.
    """
    node = find_node(scene, "vtkMRMLTextNode", PREDICTION, reference, slot)
    try:
        fields = json.loads(node.GetText()) if node is not None else None
    except (TypeError, ValueError):  # changed by hand, or cut
        return None
    return fields if isinstance(fields, dict) else None


def remove_results(scene: Scene, reference: Node) -> None:
    """Remove all that MediScan added for an image, in every slot: overlays, plots, tables, predictions, heat maps."""
    for slot in slots_of(scene, "vtkMRMLScalarVolumeNode", HEAT_MAP, reference):
        remove_overlay(scene, reference, slot)
    remove_plot(scene, reference)
    texts = dict.fromkeys((PREDICTION, HEAT_MAPS, REVIEW), "vtkMRMLTextNode")
    for role, class_name in {FINDINGS: "vtkMRMLTableNode", **texts}.items():
        for slot in slots_of(scene, class_name, role, reference):
            node = find_node(scene, class_name, role, reference, slot)
            if node is not None:
                remove_with_belongings(scene, node)


def _texts(name: str, values: Sequence[str]) -> Node:
    column = vtkStringArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(value)
    return column


def _numbers(name: str, values: Sequence[float]) -> Node:
    column = vtkDoubleArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(round(value, DIGITS))
    return column
