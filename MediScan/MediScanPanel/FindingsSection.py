"""What the model says of the image: reasons to be careful first, then findings, severity and what mattered."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MediScanLib.study.fields import FIELDS

from .Tables import probabilityBar, setTableRows, valueText

SHOWN_COVERAGE = 0.9
DECISIONS = {"present": "● present", "absent": "○ absent", "unsure": "◐ unsure"}


class FindingsSection:
    """Shows the prediction that is kept for an image."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui, self.logic = panel, panel.ui, panel.logic
        icon = slicer.app.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
        self.ui.deferralIconLabel.setPixmap(icon.pixmap(24, 24))
        self._plot: Any = None
        self._clearing = False
        self.ui.plotButton.connect("clicked(bool)", self.onPlot)

    def show(self, volumeNode: Any) -> None:
        """Fill the section with what the scene holds for an image."""
        said = self.logic.predictionFields(volumeNode)
        results = self.logic.results(volumeNode)
        for widget in (self.ui.findingsTable, self.ui.clinicalTextLabel, self.ui.modelTextLabel):
            widget.visible = said is not None
        self.ui.plotButton.visible = bool(said and said["slices"])
        if said is None:
            for widget in (self.ui.deferralFrame, self.ui.severityWidget, self.ui.contributionsWidget):
                widget.visible = False
            what = _("Press Apply.") if volumeNode else _("Choose an image and press Apply.")
            self.ui.certaintyTextLabel.text = _("No result yet. {what}").format(what=what)
            return
        self._showCertainty(said)
        self._showFindings(said)
        self._showSeverity(said, results.summary.get("severity", ""))
        self._showContributions(said)
        self.ui.clinicalTextLabel.text = self._clinicalText(said)
        provenance = said["provenance"]
        self.ui.modelTextLabel.text = _("By {model}.").format(
            model=results.summary.get("model") or f"{provenance['model']} {provenance['model_version']}"
        )

    def onPlot(self) -> None:
        """Plot the scores by slice."""
        with slicer.util.tryWithErrorDisplay(_("The scores cannot be plotted.")):
            view = self.logic.plotSlices(self.panel.node.inputVolume)
            if view is not None and view != self._plot:
                self._plot = view
                view.connect("dataSelected(vtkStringArray*,vtkCollection*)", self.onPointSelected)

    def onPointSelected(self, seriesIDs: Any, selections: Any) -> None:
        """Move the slice views to the slice of the point that was clicked."""
        if self._clearing:
            return
        if self.logic.showSelectedSlice(seriesIDs, selections) and self._plot is not None:
            # a click on another curve would leave this point selected, and lead to its slice again
            self._clearing = True
            self._plot.RemovePlotSelections()
            self._clearing = False

    def _showCertainty(self, said: dict[str, Any]) -> None:
        certainty = said["certainty"]
        self.ui.deferralFrame.visible = certainty["deferred"]
        reasons = [reason["message"] for reason in certainty["reasons"]]
        if len(reasons) > 1:
            reasons = [f"• {reason}" for reason in reasons]
        self.ui.deferralLabel.text = "\n".join([_("Leave this one to a human."), *reasons])
        top = max(said["findings"], key=lambda finding: finding["probability"])
        lines = [
            _("Most probable: {label}, but see above.").format(label=top["label"])
            if certainty["deferred"]
            else _("Most probable: {label}. No reason was found to distrust this.").format(label=top["label"])
        ]
        if all(finding["calibrated"] for finding in said["findings"]):
            lines.append(_("Probabilities are calibrated on studies that the model was not trained on."))
        else:
            lines.append(_("Probabilities are not calibrated: compare them, do not trust their size."))
        if said.get("volume_rule"):
            lines.append(said["volume_rule"])
        lines += self._trust(said)
        self.ui.certaintyTextLabel.text = "\n".join(lines)

    def _trust(self, said: dict[str, Any]) -> list[str]:
        """What cannot be excluded, how uncertain, what came from where; older results say nothing of it."""
        certainty, lines = said["certainty"], []
        for one in certainty.get("sets", []):
            if one["coverage"] == SHOWN_COVERAGE:
                labels = ", ".join(one["labels"]) or _("none")
                lines.append(
                    _("Not excluded at {coverage:.0f} % coverage: {labels}.").format(
                        coverage=100 * one["coverage"], labels=labels
                    )
                )
        scatter = certainty.get("uncertainty")
        if scatter:
            lines.append(
                _("Uncertainty {total:.2f} of 1; the model's own part of it {epistemic:.3f}.").format(
                    total=scatter["total"], epistemic=scatter["epistemic"]
                )
            )
        share = next((part for part in said.get("modalities", []) if part["finding"] == certainty["label"]), None)
        whole = abs(share["image"]) + abs(share["record"]) if share else 0
        if share and whole > 0:
            lines.append(
                _(
                    "What moved {label} came to {image:.0f} % from the image, to {record:.0f} % from the record."
                ).format(
                    label=certainty["label"],
                    image=100 * abs(share["image"]) / whole,
                    record=100 * abs(share["record"]) / whole,
                )
            )
        cases = [case["label"] for case in said.get("similar_cases", [])]
        if cases:
            counts = ", ".join(f"{cases.count(label)} {label}" for label in dict.fromkeys(cases))
            lines.append(_("Nearest training cases: {counts}.").format(counts=counts))
        return lines

    def _showFindings(self, said: dict[str, Any]) -> None:
        rows = []
        for finding in sorted(said["findings"], key=lambda finding: -finding["probability"]):
            toolTip = _("Present from {threshold:.0f} % on. {point}").format(
                threshold=100 * finding["threshold"], point=finding["operating_point"] or ""
            )
            if finding.get("interval"):
                low, high = (100 * value for value in finding["interval"])
                toolTip += "\n" + _("With parts of the features left out mostly {low:.0f} to {high:.0f} %.").format(
                    low=low, high=high
                )
            bar = probabilityBar(finding["probability"], toolTip)
            rows.append([finding["label"], _(DECISIONS[finding["decision"]]), bar])
        setTableRows(self.ui.findingsTable, rows)

    def _showSeverity(self, said: dict[str, Any], text: str) -> None:
        severity = said["severity"]
        self.ui.severityWidget.visible = True
        self.ui.severityBar.visible = severity["score"] is not None
        self.ui.severityBarLabel.visible = severity["score"] is not None
        if severity["score"] is not None:
            self.ui.severityBar.value = round(100 * severity["score"])
            self.ui.severityBar.format = severity["grade"] or f"{100 * severity['score']:.0f} %"
        self.ui.severityTextLabel.text = _("Severity: {text}").format(text=text)

    def _showContributions(self, said: dict[str, Any]) -> None:
        top = max(said["findings"], key=lambda finding: finding["probability"])["label"]
        found = next((part for part in said["clinical"].get("contributions", []) if part["finding"] == top), None)
        self.ui.contributionsWidget.visible = bool(found and found["fields"])
        if not found:
            return
        self.ui.contributionsTitleLabel.text = _("What the clinical values did to the odds of {label}:").format(
            label=top
        )
        rows = []
        for name, effect in sorted(found["fields"].items(), key=lambda pair: -abs(pair[1])):
            way = _("▲ for") if effect > 0.005 else _("▼ against") if effect < -0.005 else _("no effect")
            shown = valueText(name, said["clinical"]["used"][name])
            rows.append([f"{FIELDS[name].title} {shown}", way, f"{effect:+.2f}"])
        setTableRows(self.ui.contributionsTable, rows)

    def _clinicalText(self, said: dict[str, Any]) -> str:
        clinical = said["clinical"]
        lines = [
            _("{known} of {total} clinical values known.").format(
                known=len(clinical["used"]), total=len(clinical["used"]) + len(clinical["missing"])
            )
        ]
        if clinical["prefilled"]:
            names = ", ".join(FIELDS[name].title.lower() for name in clinical["prefilled"])
            lines.append(_("From the image: {names}.").format(names=names))
        if clinical["unlearned"]:
            names = ", ".join(FIELDS[name].title.lower() for name in clinical["unlearned"])
            lines.append(_("Not used, since no training study had it: {names}.").format(names=names))
        return " ".join(lines)
