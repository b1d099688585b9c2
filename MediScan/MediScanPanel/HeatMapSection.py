"""How the heat map looks."""

from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

SHORTCUT = "Ctrl+Shift+H"


class HeatMapSection:
    """Chooses the finding whose heat map lies over the image, and how it is drawn."""

    def __init__(self, panel: Any) -> None:
        self.panel, self.ui, self.logic = panel, panel.ui, panel.logic
        self._shownStyle: dict[str, Any] | None = None
        self._shortcut: Any = None
        self.ui.findingComboBox.connect("currentIndexChanged(int)", self.onFindingChanged)

    @property
    def style(self) -> dict[str, Any]:
        """How the heat map should be drawn, as `MediScanLogic.showHeatMap` takes it."""
        node = self.panel.node
        return {
            # over other voxels than those it was made of, it would lie
            "visible": node.showHeatMap and not self.logic.imageChanged(node.inputVolume),
            "opacity": node.opacity,
            "threshold": node.threshold,
            "colors": node.colors,
            "outline": node.outline,
            "legend": node.legend,
            "commonScale": node.commonScale,
        }

    def setParameterNode(self) -> None:
        """A parameter node was set: what it says is what is shown already."""
        self._shownStyle = self.style

    def update(self) -> None:
        """Draw the heat map anew if it should look otherwise."""
        node = self.panel.node
        self._select(node.finding)
        if self.style != self._shownStyle:
            # only then, so that typing elsewhere in the panel never turns the views back to this image
            self._shownStyle = self.style
            self.logic.styleHeatMap(node.inputVolume, **self.style)

    def show(self, volumeNode: Any) -> None:
        """Offer the findings that have a heat map."""
        results = self.logic.results(volumeNode)
        blocked = self.ui.findingComboBox.blockSignals(True)
        self.ui.findingComboBox.clear()
        self.ui.findingComboBox.addItems(list(results.findings))
        self.ui.findingComboBox.blockSignals(blocked)
        self.ui.heatMapCollapsibleButton.enabled = bool(results.findings)
        if self.panel.node and results.shown:
            self.panel.node.finding = results.shown
            self._select(results.shown)

    def onFindingChanged(self, index: int = -1) -> None:
        """Show the heat map of the chosen finding."""
        node = self.panel.node
        label = self.ui.findingComboBox.currentText
        if not node or not label or label == node.finding:
            return
        node.finding = label
        with slicer.util.tryWithErrorDisplay(_("The heat map cannot be shown."), waitCursor=True):
            self.logic.showHeatMap(node.inputVolume, label, **self.style)

    def enter(self) -> None:
        """The module was opened: its shortcut works from now on."""
        window = slicer.util.mainWindow()
        if window is not None and self._shortcut is None:
            self._shortcut = qt.QShortcut(qt.QKeySequence(SHORTCUT), window)
            self._shortcut.connect("activated()", self.toggle)

    def exit(self) -> None:
        """Another module is opened: its shortcuts are not ours."""
        if self._shortcut is not None:
            self._shortcut.enabled = False
            self._shortcut.setParent(None)
            self._shortcut.deleteLater()
            self._shortcut = None

    def toggle(self) -> None:
        """Show the heat map, or hide it."""
        if self.panel.node:
            self.panel.node.showHeatMap = not self.panel.node.showHeatMap

    def _select(self, label: str) -> None:
        box = self.ui.findingComboBox
        blocked = box.blockSignals(True)
        box.setCurrentIndex(box.findText(label))
        box.blockSignals(blocked)
