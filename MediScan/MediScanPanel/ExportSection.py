"""Results as files."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _


class ExportSection:
    """Writes the prediction of an image, and a picture of the views."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui, self.logic = panel, panel.ui, panel.logic
        self.ui.exportButton.connect("clicked(bool)", self.onExport)
        self.ui.exportDirectoryButton.directory = qt.QStandardPaths.writableLocation(
            qt.QStandardPaths.DocumentsLocation
        )
        for box in self._boxes().values():
            box.connect("toggled(bool)", self.update)

    def update(self, value: object = None) -> None:
        """Enable the button where there is something to write."""
        node = self.panel.node
        there = node is not None and self.logic.predictionFields(node.inputVolume) is not None
        self.ui.exportCollapsibleButton.enabled = there
        self.ui.exportButton.enabled = there and bool(self._formats())
        self.ui.exportDatabaseCheckBox.enabled = self.ui.exportDicomCheckBox.checked

    def show(self, volumeNode: Any) -> None:
        """Another image is shown: what was said of the last one goes."""
        self._say("")
        self.update()

    def onExport(self) -> None:
        """Write the files."""
        with slicer.util.tryWithErrorDisplay(_("The results were not written."), waitCursor=True):
            try:
                files = self.logic.export(
                    self.panel.node.inputVolume, self.ui.exportDirectoryButton.directory, self._formats()
                )
            except Exception as error:
                self._say(str(error))
                raise
        self._say(_("Written: {files}.").format(files=", ".join(file.name for file in files)))

    def _boxes(self) -> dict[str, Any]:
        ui = self.ui
        return {
            "json": ui.exportJsonCheckBox,
            "csv": ui.exportCsvCheckBox,
            "html": ui.exportHtmlCheckBox,
            "views": ui.exportViewsCheckBox,
            "dicom": ui.exportDicomCheckBox,
        }

    def _formats(self) -> list[str]:
        formats = [name for name, box in self._boxes().items() if box.checked]
        if "dicom" in formats and self.ui.exportDatabaseCheckBox.checked:
            formats.append("database")
        return formats

    def _say(self, text: str) -> None:
        self.ui.exportStatusLabel.text = text
        self.ui.exportStatusLabel.visible = bool(text)
