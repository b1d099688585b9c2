"""Image, model and device."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from MediScanLib.errors import MediScanError


class StudySection:
    """What is looked at, and by which model."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui, self.logic = panel, panel.ui, panel.logic
        self._names: list[str] = []
        self._verified = ""
        self.ui.modelComboBox.connect("currentIndexChanged(int)", self.onModelChanged)
        self.ui.modelList.connect("currentRowChanged(int)", self.onModelListed)
        self.ui.modelSearchBox.connect("textChanged(QString)", self.onSearch)
        self.ui.addModelFolderButton.connect("clicked(bool)", self.onAddFolder)
        self.ui.addModelFileButton.connect("clicked(bool)", self.onAddFile)
        self.ui.addModelAddressButton.connect("clicked(bool)", self.onAddAddress)
        self.ui.removeModelButton.connect("clicked(bool)", self.onRemove)
        self.ui.verifyModelButton.connect("clicked(bool)", self.onVerify)
        self.ui.modelStatusLabel.visible = False

    def update(self) -> None:
        """Show what the parameter node holds."""
        self._select(self.panel.node.modelName)

    def show(self, volumeNode: Any) -> None:
        """Say what is known of an image."""
        self.ui.imageFactsLabel.text = self.logic.imageFacts(volumeNode)
        self.ui.imageFactsLabel.visible = bool(self.ui.imageFactsLabel.text)

    def fillModels(self) -> None:
        """Read anew which models there are."""
        models = self.logic.availableModels()
        blocked = self.ui.modelComboBox.blockSignals(True)
        self.ui.modelComboBox.clear()
        for name, title in models.items():
            self.ui.modelComboBox.addItem(name)
            self.ui.modelComboBox.setItemData(self.ui.modelComboBox.count - 1, title, qt.Qt.ToolTipRole)
        if self.panel.node:
            self._select(self.panel.node.modelName)
        self.ui.modelComboBox.blockSignals(blocked)
        self._fillList()

    def offerModels(self, models: dict[str, str]) -> None:
        """Offer the models of a server, and choose its first where it does not have the chosen one."""
        if not models or not self.panel.node:
            return
        blocked = self.ui.modelComboBox.blockSignals(True)
        self.ui.modelComboBox.clear()
        for name, title in models.items():
            self.ui.modelComboBox.addItem(name)
            self.ui.modelComboBox.setItemData(self.ui.modelComboBox.count - 1, title, qt.Qt.ToolTipRole)
        self.ui.modelComboBox.blockSignals(blocked)
        if self.panel.node.modelName not in models:
            self.panel.node.modelName = next(iter(models))
        self._select(self.panel.node.modelName)

    def onModelChanged(self, index: int = -1) -> None:
        """Take the chosen model into the parameter node."""
        if self.panel.node and self.ui.modelComboBox.currentText:
            self.panel.node.modelName = self.ui.modelComboBox.currentText
            self._showListed()

    def onSearch(self, text: str = "") -> None:
        """Show the models that hold every word of the search."""
        self._fillList()

    def onModelListed(self, row: int = -1) -> None:
        """Choose the model in the list, and show its card."""
        if 0 <= row < len(self._names) and self.panel.node:
            self.panel.node.modelName = self._names[row]
            self.ui.modelCardBrowser.setPlainText(self.logic.modelCard(self._names[row]))

    def onAddFolder(self) -> None:
        """Ask for a folder and add the model in it."""
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of a model"))
        if folder:
            self.addModel(folder)

    def onAddFile(self) -> None:
        """Ask for a file and add the model in it."""
        file = qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Model"), "", _("Models (*.zip)"))
        if file:
            self.addModel(file)

    def onAddAddress(self) -> None:
        """Download the model at the address."""
        self.addModel(self.ui.modelAddressEdit.text.strip(), self.ui.modelHashEdit.text.strip())

    def addModel(self, source: str, sha256: str = "") -> None:
        """Add a model from a folder, a file or an address, and choose it."""
        self._say(_("Adding the model..."))
        slicer.app.processEvents()
        try:
            with slicer.util.tryWithErrorDisplay(_("The model was not added."), waitCursor=True):
                name = self.logic.addModel(source, sha256 or None)
        except MediScanError as error:
            self._say(str(error))
            raise
        self._say(_("{name} was added.").format(name=name))
        if self.panel.node:
            self.panel.node.modelName = name
        self.fillModels()

    def onRemove(self) -> None:
        """Remove the model, after asking."""
        name = self.ui.modelComboBox.currentText
        if not slicer.util.confirmOkCancelDisplay(_("Remove the model {name} from this computer?").format(name=name)):
            return
        try:
            with slicer.util.tryWithErrorDisplay(_("The model was not removed.")):
                self.logic.removeModel(name)
        except MediScanError as error:
            self._say(str(error))
            raise
        self._say(_("{name} was removed.").format(name=name))
        if self.panel.node:
            self.panel.node.modelName = self.panel.defaultModel
        self.fillModels()

    def onVerify(self) -> None:
        """Compare the model's files with their hashes."""
        self._say(self.logic.verifyModel(self.ui.modelComboBox.currentText))

    def _say(self, text: str) -> None:
        self.ui.modelStatusLabel.text = text
        self.ui.modelStatusLabel.visible = bool(text)

    def _fillList(self) -> None:
        words = self.ui.modelSearchBox.text.lower().split()
        found = {
            name: text
            for name, text in self.logic.modelSearchTexts().items()
            if all(word in text.lower() for word in words)
        }
        self._names = list(found)
        blocked = self.ui.modelList.blockSignals(True)
        self.ui.modelList.clear()
        for name in self._names:
            self.ui.modelList.addItem(name)
        self.ui.modelList.blockSignals(blocked)
        self._showListed()

    def _showListed(self) -> None:
        name = self.panel.node.modelName if self.panel.node else ""
        blocked = self.ui.modelList.blockSignals(True)
        self.ui.modelList.setCurrentRow(self._names.index(name) if name in self._names else -1)
        self.ui.modelList.blockSignals(blocked)
        searched = bool(self.ui.modelSearchBox.text.strip())
        self.ui.modelCardBrowser.setPlainText(
            _("No model holds these words.") if searched and name not in self._names else self.logic.modelCard(name)
        )

    def _select(self, name: str) -> None:
        """Select a model; one that is not there (any more) is shown all the same, so that Apply can say so."""
        box = self.ui.modelComboBox
        if box.currentText == name:
            return
        blocked = box.blockSignals(True)
        index = box.findText(name)
        if index < 0 and name:
            box.addItem(name)
            index = box.count - 1
        box.setCurrentIndex(index)
        box.blockSignals(blocked)
        self._showListed()
