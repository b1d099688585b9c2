"""The prediction in the scene: a table of findings for people, and its JSON, which is saved with the scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vtkmodules.vtkCommonCore import VTK_ENCODING_UTF_8, vtkDoubleArray, vtkStringArray

from .nodes import Node, Scene, ensure_node, find_node, remove_with_belongings
from .overlay import remove_overlay
from .stored_maps import HEAT_MAPS

if TYPE_CHECKING:
    from ..prediction.result import Prediction

FINDINGS = "findings"
PREDICTION = "prediction"
SUMMARY_NAMES = ("severity", "certainty", "clinical", "model")
SUMMARY = "MediScan.Summary."
DIGITS = 4


def show_findings(scene: Scene, prediction: Prediction, reference: Node) -> Node:
    """Fill the image's table of findings, most probable first.

    Columns: finding, probability, threshold, decision. Severity and certainty are not findings; they are in
    attributes of the node (`shown_summary`) and in the JSON.

    Returns:
        vtkMRMLTableNode, locked against editing, one an image.
    """
    node = ensure_node(scene, "vtkMRMLTableNode", FINDINGS, reference)
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


def find_findings(scene: Scene, reference: Node) -> Node | None:
    """The image's table of findings, None if there is none."""
    return find_node(scene, "vtkMRMLTableNode", FINDINGS, reference)


def shown_summary(scene: Scene, reference: Node) -> dict[str, str]:
    """What `summary_lines` said when the image's table was filled; empty texts where there is no table."""
    table = find_findings(scene, reference)
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


def store_prediction(scene: Scene, prediction: Prediction, reference: Node) -> Node:
    """Keep the prediction's JSON in a text node beside the image.

    Returns:
        vtkMRMLTextNode, one an image.
    """
    node = ensure_node(scene, "vtkMRMLTextNode", PREDICTION, reference)
    node.SetText(prediction.to_json(indent=1), VTK_ENCODING_UTF_8)
    return node


def stored_prediction(scene: Scene, reference: Node) -> Prediction | None:
    """The prediction that is kept for an image, without its heat maps; None if there is none.

    Raises:
        pydantic.ValidationError: The text was changed and is no prediction any more.
    """
    from ..prediction.result import Prediction

    node = find_node(scene, "vtkMRMLTextNode", PREDICTION, reference)
    return Prediction.from_json(node.GetText()) if node is not None and node.GetText() else None


def remove_results(scene: Scene, reference: Node) -> None:
    """Remove everything that MediScan added for an image: overlay, table, prediction and heat maps."""
    remove_overlay(scene, reference)
    roles = {FINDINGS: "vtkMRMLTableNode", PREDICTION: "vtkMRMLTextNode", HEAT_MAPS: "vtkMRMLTextNode"}
    for role, class_name in roles.items():
        node = find_node(scene, class_name, role, reference)
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
