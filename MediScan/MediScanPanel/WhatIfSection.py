"""What the model would say if a clinical value were another."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MediScanLib.study.fields import FIELDS

from .Tables import setTableRows, valueText

REST_MILLISECONDS = 60


class WhatIfSection:
    """Tries clinical values on the image that was looked at, beside what was said of it."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui, self.logic, self.runner = panel, panel.ui, panel.logic, panel.runner
        self.tried: dict[str, float | str | None] = {}
        self._volumeID = ""
        for name, info in FIELDS.items():
            self.ui.whatIfFieldComboBox.addItem(info.title, name)
        self._rest = qt.QTimer()
        self._rest.setSingleShot(True)
        self._rest.setInterval(REST_MILLISECONDS)
        self._rest.connect("timeout()", self.onRested)
        self.ui.whatIfFieldComboBox.connect("currentIndexChanged(int)", self.onFieldChanged)
        self.ui.whatIfSlider.connect("valueChanged(double)", self.onValueChanged)
        self.ui.whatIfChoiceComboBox.connect("currentIndexChanged(int)", self.onValueChanged)
        self.ui.whatIfUnknownCheckBox.connect("toggled(bool)", self.onValueChanged)
        self.ui.whatIfResetButton.connect("clicked(bool)", self.onReset)
        self.ui.whatIfCollapsibleButton.connect("contentsCollapsed(bool)", self.onFolded)

    @property
    def field(self) -> str:
        """Name of the field that is tried."""
        return self.ui.whatIfFieldComboBox.itemData(self.ui.whatIfFieldComboBox.currentIndex)

    def cleanup(self) -> None:
        """Let go of everything."""
        self._rest.stop()

    def show(self, volumeNode: Any) -> None:
        """Start from what was said of an image."""
        self._rest.stop()
        self.tried = {}
        self._volumeID = volumeNode.GetID() if volumeNode else ""
        said = self.logic.predictionFields(volumeNode)
        self.ui.whatIfCollapsibleButton.enabled = said is not None
        self.ui.whatIfTable.visible = said is not None
        self.ui.whatIfStatusLabel.text = _("Change a value: the findings move at once.")
        if said is not None:
            self._fill(said, None)
            self.onFieldChanged()

    def onFolded(self, folded: bool) -> None:
        """Nothing is tried while nobody looks."""
        if folded:
            self._rest.stop()

    def onFieldChanged(self, index: int = -1) -> None:
        """Show the value that the chosen field has, tried or known."""
        info = FIELDS[self.field]
        said = self.logic.predictionFields(self._volume())
        known = said["clinical"]["used"].get(info.name) if said else None
        value = self.tried.get(info.name, known)
        widgets = (self.ui.whatIfSlider, self.ui.whatIfChoiceComboBox, self.ui.whatIfUnknownCheckBox)
        blocked = [widget.blockSignals(True) for widget in widgets]
        self.ui.whatIfSlider.visible = not info.choices
        self.ui.whatIfChoiceComboBox.visible = bool(info.choices)
        if info.choices:
            self.ui.whatIfChoiceComboBox.clear()
            self.ui.whatIfChoiceComboBox.addItems(list(info.choices))
            self.ui.whatIfChoiceComboBox.setCurrentIndex(info.choices.index(value) if value in info.choices else 0)
        else:
            self.ui.whatIfSlider.minimum = info.minimum
            self.ui.whatIfSlider.maximum = info.maximum
            self.ui.whatIfSlider.suffix = f" {info.unit}" if info.unit else ""
            self.ui.whatIfSlider.value = (info.minimum + info.maximum) / 2 if value is None else value
        self.ui.whatIfUnknownCheckBox.checked = value is None
        for widget, before in zip(widgets, blocked, strict=True):
            widget.blockSignals(before)
        self._enable()

    def onValueChanged(self, value: object = None) -> None:
        """Try the value that is shown now, once it has come to rest."""
        info = FIELDS[self.field]
        if value is not None and not isinstance(value, bool):  # moved: so it is meant
            blocked = self.ui.whatIfUnknownCheckBox.blockSignals(True)
            self.ui.whatIfUnknownCheckBox.checked = False
            self.ui.whatIfUnknownCheckBox.blockSignals(blocked)
        if self.ui.whatIfUnknownCheckBox.checked:
            self.tried[info.name] = None
        elif info.choices:
            self.tried[info.name] = self.ui.whatIfChoiceComboBox.currentText
        else:
            self.tried[info.name] = self.ui.whatIfSlider.value
        self._enable()
        self._rest.start()

    def onReset(self) -> None:
        """Forget what was tried."""
        self.show(self._volume())

    def onRested(self) -> None:
        """Ask the model; a run that the user waits for goes first."""
        volumeNode, node = self._volume(), self.panel.node
        said = self.logic.predictionFields(volumeNode)
        if said is None or not node:
            return
        if self.runner.job is not None:
            self._rest.start()
            return
        self.ui.whatIfStatusLabel.text = _("Asking the model...")
        with slicer.util.tryWithErrorDisplay(_("The value was not tried.")):
            try:
                self.runner.start(
                    volumeNode,
                    {**said["clinical"]["used"], **self.tried},
                    self._onPrediction,
                    visible=False,
                    modelName=node.modelName,
                    device=node.device,
                    slices=[part["index"] for part in said["slices"]] or None,
                    prefill=False,
                )
            except Exception as error:
                self.ui.whatIfStatusLabel.text = str(error)
                raise

    def _onPrediction(self, volumeNode: Any, prediction: Any) -> None:
        said = self.logic.predictionFields(volumeNode)
        if volumeNode.GetID() != self._volumeID or said is None:
            return
        if prediction.provenance.model_sha256 != said["provenance"]["model_sha256"]:
            self.ui.whatIfStatusLabel.text = _("Another model is chosen now. Press Apply first.")
            return
        self._fill(said, prediction.probabilities)
        tried = [f"{FIELDS[name].title} {valueText(name, value)}" for name, value in self.tried.items()]
        self.ui.whatIfStatusLabel.text = _("Tried: {values}.").format(values=", ".join(tried))

    def _fill(self, said: dict[str, Any], tried: dict[str, float] | None) -> None:
        rows = []
        for finding in sorted(said["findings"], key=lambda finding: -finding["probability"]):
            before = finding["probability"]
            after = before if tried is None else tried[finding["label"]]
            change = 100 * (after - before)
            arrow = "▲" if change > 0 else "▼"
            sign = "=" if abs(change) < 0.05 else f"{arrow} {change:+.1f} points"
            rows.append([finding["label"], f"{100 * before:.1f} %", f"{100 * after:.1f} %", sign])
        setTableRows(self.ui.whatIfTable, rows)

    def _enable(self) -> None:
        unknown = self.ui.whatIfUnknownCheckBox.checked
        self.ui.whatIfSlider.enabled = True
        self.ui.whatIfSlider.toolTip = _("Unknown now; move it to try a value.") if unknown else ""

    def _volume(self) -> Any:
        return slicer.mrmlScene.GetNodeByID(self._volumeID) if self._volumeID else None
