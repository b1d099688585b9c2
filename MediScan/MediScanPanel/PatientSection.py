"""The ten clinical values."""

import json
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MediScanLib.errors import MediScanError
from MediScanLib.study.fields import FIELDS
from MediScanLib.study.values import UNKNOWN_WORDS


class PatientSection:
    """What is known of the patient; every value may stay unknown."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui, self.logic = panel, panel.ui, panel.logic
        self.ui.loadClinicalButton.connect("clicked(bool)", self.onLoad)
        self.ui.saveClinicalButton.connect("clicked(bool)", self.onSave)
        self.ui.resetClinicalButton.connect("clicked(bool)", self.reset)

    @property
    def values(self) -> dict[str, str]:
        """What was entered, as typed."""
        return {name: self.panel.node.getValue(name) for name in FIELDS}

    def update(self) -> None:
        """Mark every value that is not understood or out of range, at its own place."""
        values = self.values
        for name, info in FIELDS.items():
            problem = self.logic.clinicalProblem({name: values[name]})
            unit = getattr(self.ui, f"{name}UnitLabel")
            unit.text = f"⚠ {info.range_text}" if problem else info.unit
            unit.toolTip = problem
        known = sum(text.strip().lower() not in UNKNOWN_WORDS for text in values.values())
        self.ui.clinicalCollapsibleButton.text = _("Patient ({known} of {total} values entered)").format(
            known=known, total=len(FIELDS)
        )

    def showPrefill(self, volumeNode: Any) -> None:
        """Say which values the image's header states; they count unless the user enters others."""
        prefill = self.logic.prefill(volumeNode)
        for name, info in FIELDS.items():
            value = prefill.get(name)
            text = (
                _("unknown")
                if value is None
                else _("{value} (from the image)").format(value=value if info.choices else f"{value:g}")
            )
            if info.choices:
                getattr(self.ui, f"{name}ComboBox").setItemText(0, text)
            else:
                getattr(self.ui, f"{name}Edit").placeholderText = text

    def reset(self) -> None:
        """Make every value unknown."""
        self._enter({})

    def onLoad(self) -> None:
        """Ask for a file and read the values from it."""
        file = qt.QFileDialog.getOpenFileName(
            slicer.util.mainWindow(), _("Clinical values"), "", _("Clinical values (*.json *.csv)")
        )
        if file:
            self.load(file)

    def load(self, file: str) -> None:
        """Read the values from a JSON or CSV file; on an error those that were entered stay."""
        with slicer.util.tryWithErrorDisplay(_("The clinical values were not read.")):
            self._enter(self.logic.readClinicalValues(file, self.panel.node.inputVolume))

    def onSave(self) -> None:
        """Ask for a file and write the values to it."""
        file = qt.QFileDialog.getSaveFileName(
            slicer.util.mainWindow(), _("Clinical values"), "clinical.json", _("Clinical values (*.json)")
        )
        if file:
            self.save(file)

    def save(self, file: str) -> None:
        """Write the known values to a JSON file."""
        with slicer.util.tryWithErrorDisplay(_("The clinical values were not written.")):
            from MediScanLib.study.record import ClinicalRecord

            problem = self.logic.clinicalProblem(self.values)
            if problem:
                raise MediScanError(problem)
            known = ClinicalRecord(**self.values).known
            Path(file).write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")

    def _enter(self, values: dict[str, float | str]) -> None:
        wasModified = self.panel.node.StartModify()
        for name, info in FIELDS.items():
            value = values.get(name)
            unknown = "unknown" if info.choices else ""
            text = unknown if value is None else value if isinstance(value, str) else f"{value:g}"
            self.panel.node.setValue(name, text)
        self.panel.node.EndModify(wasModified)
