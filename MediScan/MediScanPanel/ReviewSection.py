"""What a reader says about the prediction."""

from typing import Any

import slicer
from slicer.i18n import tr as _


class ReviewSection:
    """Agree or disagree, with the right finding, a severity, a note and a region; kept on this computer."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui, self.logic = panel, panel.ui, panel.logic
        self.ui.agreeRadioButton.connect("toggled(bool)", self.onAnswered)
        self.ui.disagreeRadioButton.connect("toggled(bool)", self.onAnswered)
        self.ui.correctedFindingComboBox.connect("currentIndexChanged(int)", self.onAnswered)
        self.ui.correctedSeverityCheckBox.connect("toggled(bool)", self.onAnswered)
        self.ui.drawRegionButton.connect("clicked(bool)", self.onDraw)
        self.ui.saveReviewButton.connect("clicked(bool)", self.onSave)
        self._volumeID = ""

    def show(self, volumeNode: Any) -> None:
        """Ask about the prediction of an image; a review that it has already is shown."""
        said = self.logic.predictionFields(volumeNode)
        self._volumeID = volumeNode.GetID() if volumeNode else ""
        self.ui.reviewCollapsibleButton.enabled = said is not None
        for button in (self.ui.agreeRadioButton, self.ui.disagreeRadioButton):
            button.autoExclusive = False  # two exclusive buttons cannot both be off
            button.checked = False
            button.autoExclusive = True
        self.ui.correctedFindingComboBox.clear()
        self.ui.correctedSeverityCheckBox.checked = False
        self.ui.reviewNoteEdit.text = ""
        self.ui.reviewQuestionLabel.text = _("No result yet.")
        self._say("")
        if said is None:
            self.onAnswered()
            return
        top = max(said["findings"], key=lambda finding: finding["probability"])["label"]
        self.ui.reviewQuestionLabel.text = _("The model's most probable finding is {label}.").format(label=top)
        self.ui.correctedFindingComboBox.addItems(
            [finding["label"] for finding in said["findings"] if finding["label"] != top] + [_("another")]
        )
        self._showEarlier(self.logic.review(volumeNode), said)
        self.onAnswered()

    def onAnswered(self, value: object = None) -> None:
        """Enable what belongs to the answer."""
        disagree = self.ui.disagreeRadioButton.checked
        self.ui.correctedFindingComboBox.enabled = disagree
        self.ui.correctedSeveritySlider.enabled = self.ui.correctedSeverityCheckBox.checked
        self.ui.saveReviewButton.enabled = disagree or self.ui.agreeRadioButton.checked

    def onDraw(self) -> None:
        """Let the reader draw a region of interest."""
        node = self.logic.drawRegion(self._volume())
        self.ui.reviewRegionSelector.setCurrentNode(node)
        self.ui.regionSelector.setCurrentNode(node)

    def onSave(self) -> None:
        """Keep the review in the scene and in the file of reviews."""
        with slicer.util.tryWithErrorDisplay(_("The review was not saved.")):
            try:
                count, file = self.logic.addReview(
                    self._volume(),
                    agree=self.ui.agreeRadioButton.checked,
                    correctedLabel=self._label(),
                    correctedSeverity=(
                        self.ui.correctedSeveritySlider.value if self.ui.correctedSeverityCheckBox.checked else None
                    ),
                    note=self.ui.reviewNoteEdit.text,
                    region=self.ui.reviewRegionSelector.currentNode(),
                )
            except Exception as error:
                self._say(str(error))
                raise
        self._say(_("Saved in {file}, which holds {count} now.").format(count=count, file=file))

    def _label(self) -> str | None:
        box = self.ui.correctedFindingComboBox
        if not self.ui.disagreeRadioButton.checked or box.currentIndex == box.count - 1:
            return None
        return str(box.currentText)

    def _showEarlier(self, review: dict[str, Any] | None, said: dict[str, Any]) -> None:
        if review is None or review["model_sha256"] != said["provenance"]["model_sha256"]:
            return
        (self.ui.agreeRadioButton if review["agree"] else self.ui.disagreeRadioButton).checked = True
        box = self.ui.correctedFindingComboBox
        index = box.findText(review["corrected_label"] or "")
        box.setCurrentIndex(index if index >= 0 else box.count - 1)
        self.ui.correctedSeverityCheckBox.checked = review["corrected_severity"] is not None
        self.ui.correctedSeveritySlider.value = review["corrected_severity"] or 0.0
        self.ui.reviewNoteEdit.text = review["note"]
        self._say(_("Reviewed on {day}.").format(day=review["reviewed_at"][:10]))

    def _say(self, text: str) -> None:
        self.ui.reviewStatusLabel.text = text
        self.ui.reviewStatusLabel.visible = bool(text)

    def _volume(self) -> Any:
        return slicer.mrmlScene.GetNodeByID(self._volumeID) if self._volumeID else None
