"""From the 14 observations of the CheXpert labeler, which CheXpert and MIMIC-CXR-JPG share, to one manifest label."""

from __future__ import annotations

from collections.abc import Mapping

from ...errors import DataError
from ..datasets import SEVERAL
from .entries import Choices

OBSERVATIONS = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
_OURS = {"Pneumonia": "pneumonia", "Fracture": "fracture"}
_VALUES = {"1": 1, "0": 0, "-1": -1, "": None}


def manifest_label(row: Mapping[str, str], choices: Choices) -> tuple[str | None, str]:
    """(label, why left out); the label is None where the study is left out.

    The observations are 1 for present, 0 for absent, -1 for uncertain, empty for not mentioned. In this order:

    * `Choices.uncertain` first turns an uncertain Pneumonia or Fracture into 1 ("ones") or 0 ("zeros"), or leaves the
      study out ("ignore"). Uncertain values of the other observations never matter.
    * Pneumonia and Fracture that are present, and with "unknown" those that are uncertain beside a present one, are
      the candidates: one makes the label, two make "pneumonia|fracture", any of which may be right.
    * Nothing of ours present, something of ours uncertain: `unknown`. The study may or may not have it, and if not it
      has something that is none of our classes.
    * No Finding present: normal. Support devices do not count against it, as in the labeler itself.
    * All others fall under `Choices.others`; a finding that was not mentioned then counts as absent.

    Lung Opacity and Consolidation are not taken for pneumonia, nor Lung Lesion for cancer.

    Raises:
        DataError: A value that is none of 1, 0, -1 and empty.
    """
    values = {name: _value(name, row.get(name, "")) for name in ("No Finding", *_OURS)}
    ours = {label: values[name] for name, label in _OURS.items()}
    if -1 in ours.values():
        if choices.uncertain == "ignore":
            return None, "an uncertain label"
        replacement = {"ones": 1, "zeros": 0, "unknown": -1}[choices.uncertain]
        ours = {label: replacement if value == -1 else value for label, value in ours.items()}
    if 1 in ours.values():
        return SEVERAL.join(label for label, value in ours.items() if value in (1, -1)), ""
    if -1 in ours.values():
        return "unknown", ""
    if values["No Finding"] == 1:
        return "normal", ""
    if choices.others == "negative":
        return "no_pneumonia", ""
    return None, "findings that are none of ours"


def finding_text(row: Mapping[str, str]) -> str:
    """The observations that are present, and with a question mark the uncertain ones, joined by "|"."""
    marks = {1: "", -1: "?"}
    values = {name: _value(name, row.get(name, "")) for name in OBSERVATIONS}
    return SEVERAL.join(name + marks[value] for name, value in values.items() if value in marks)


def _value(name: str, text: str) -> int | None:
    key = text.strip().removesuffix(".0")
    if key not in _VALUES:
        raise DataError(f"{name} is {text!r}, none of 1.0, 0.0, -1.0 and empty.")
    return _VALUES[key]
