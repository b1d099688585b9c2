"""The widgets of CTK and of Slicer that the panel's .ui file names, as far as it uses them."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Property, QRect, Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGroupBox,
    QHBoxLayout,
    QLineEdit,
    QPushButton,
    QSlider,
    QStyle,
    QStyleOptionButton,
    QStylePainter,
    QWidget,
)


class qMRMLWidget(QWidget):
    """The outermost widget: hands the scene on to those inside that the .ui file connects."""

    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        self.mrmlSceneChanged.emit(scene)


class ctkCollapsibleButton(QWidget):
    """A heading whose contents can be folded away."""

    contentsCollapsed = Signal(bool)
    _HEADING = 22

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(0, self._HEADING, 0, 0)

    def _get_text(self) -> str:
        return self._text

    def _set_text(self, text: str) -> None:
        self._text = text
        self.update()

    def _get_collapsed(self) -> bool:
        return self._collapsed

    def _set_collapsed(self, collapsed: bool) -> None:
        self._collapsed = collapsed  # the contents are cut off and not hidden: whoever hid a part of them meant it
        self.setMaximumHeight(self._HEADING if collapsed else 16777215)
        self.contentsCollapsed.emit(collapsed)

    text = Property(str, _get_text, _set_text)
    collapsed = Property(bool, _get_collapsed, _set_collapsed)

    def paintEvent(self, event: Any) -> None:
        painter, option = QStylePainter(self), QStyleOptionButton()
        option.initFrom(self)
        option.rect = QRect(0, 0, self.width(), self._HEADING)
        option.text = ("▸ " if self._collapsed else "▾ ") + self._text
        painter.drawControl(QStyle.ControlElement.CE_PushButton, option)


class ctkSliderWidget(QWidget):
    """A slider with a number beside it."""

    valueChanged = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider, self._box = QSlider(Qt.Orientation.Horizontal), QDoubleSpinBox()
        layout.addWidget(self._slider)
        layout.addWidget(self._box)
        self._box.valueChanged.connect(self._moved)

    def _moved(self, value: float) -> None:
        span = self._box.maximum() - self._box.minimum()
        self._slider.setValue(round(99 * (value - self._box.minimum()) / span) if span else 0)
        self.valueChanged.emit(value)

    value = Property(float, lambda self: self._box.value(), lambda self, v: self._box.setValue(v))
    minimum = Property(float, lambda self: self._box.minimum(), lambda self, v: self._box.setMinimum(v))
    maximum = Property(float, lambda self: self._box.maximum(), lambda self, v: self._box.setMaximum(v))
    singleStep = Property(float, lambda self: self._box.singleStep(), lambda self, v: self._box.setSingleStep(v))
    decimals = Property(int, lambda self: self._box.decimals(), lambda self, v: self._box.setDecimals(v))
    pageStep = Property(float, lambda self: 0.1, lambda self, v: None)
    suffix = Property(str, lambda self: self._box.suffix(), lambda self, v: self._box.setSuffix(v))


class qMRMLNodeComboBox(QWidget):
    """Chooses a node of the scene by class."""

    SCENE_SIGNALS = ("currentNodeChanged(vtkMRMLNode*)",)
    currentNodeChanged = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._box = QComboBox()
        layout.addWidget(self._box)
        self._scene: Any = None
        self._types: list[str] = []
        self._hidden: list[str] = []
        self._none = False
        self._ids: list[str | None] = []
        self._filters: dict[str, tuple[str, str]] = {}
        self._box.currentIndexChanged.connect(lambda _: self.currentNodeChanged.emit(self.currentNode()))

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
            scene.AddObserver(event, self._read)
        for event in (scene.EndImportEvent, scene.EndCloseEvent):
            scene.AddObserver(event, lambda *_: self._read_anew())
        self._fill(self._nodes())

    def _read(self, *_: Any) -> None:
        if not self._scene.IsImporting() and not self._scene.IsClosing():
            self._fill(self._nodes())

    def _read_anew(self) -> None:
        """As the application does after a scene was loaded: all are taken away first, so that nothing stays chosen."""
        self._fill([])
        self._fill(self._nodes())

    def _nodes(self) -> list[Any]:
        return [
            node
            for kind in self._types
            for i in range(self._scene.GetNumberOfNodesByClass(kind))
            if not (node := self._scene.GetNthNodeByClass(i, kind)).GetHideFromEditors()
            and not any(node.IsA(hidden) for hidden in self._hidden)
        ]

    def _fill(self, nodes: list[Any]) -> None:
        """Offer nodes. The chosen one stays chosen; the first of all chooses itself, as the one after a gone one."""
        chosen, index, empty = self.currentNodeID, self._box.currentIndex(), not self._ids
        before = self._box.blockSignals(True)
        self._box.clear()
        self._ids = ([None] if self._none else []) + [node.GetID() for node in nodes]
        self._box.addItems((["None"] if self._none else []) + [node.GetName() or "" for node in nodes])
        if chosen in self._ids:
            index = self._ids.index(chosen)
        elif empty:
            index = 0
        self._box.setCurrentIndex(min(index, len(self._ids) - 1))
        self._box.blockSignals(before)
        if chosen != self.currentNodeID:
            self.currentNodeChanged.emit(self.currentNode())

    def currentNode(self) -> Any:
        found = self.currentNodeID
        return self._scene.GetNodeByID(found) if found and self._scene is not None else None

    def setCurrentNode(self, node: Any) -> None:
        self._set_id(node.GetID() if node is not None else "")

    def _get_id(self) -> str:
        index = self._box.currentIndex()
        return (self._ids[index] or "") if 0 <= index < len(self._ids) else ""

    def _set_id(self, node_id: str) -> None:
        wanted = node_id or None
        self._box.setCurrentIndex(self._ids.index(wanted) if wanted in self._ids else -1)

    currentNodeID = Property(str, _get_id, _set_id, notify=currentNodeChanged)
    nodeTypes = Property(
        "QStringList", lambda self: self._types, lambda self, types: setattr(self, "_types", list(types))
    )
    hideChildNodeTypes = Property(
        "QStringList", lambda self: self._hidden, lambda self, types: setattr(self, "_hidden", list(types))
    )
    noneEnabled = Property(bool, lambda self: self._none, lambda self, v: setattr(self, "_none", v))
    showChildNodeTypes = Property(bool, lambda self: True, lambda self, v: None)
    showHidden = Property(bool, lambda self: False, lambda self, v: None)
    addEnabled = Property(bool, lambda self: False, lambda self, v: None)
    removeEnabled = Property(bool, lambda self: False, lambda self, v: None)
    renameEnabled = Property(bool, lambda self: False, lambda self, v: None)
    editEnabled = Property(bool, lambda self: False, lambda self, v: None)
    selectNodeUponCreation = Property(bool, lambda self: False, lambda self, v: None)


class ctkSearchBox(QLineEdit):
    """A line to search with."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setClearButtonEnabled(True)


class ctkDirectoryButton(QWidget):
    """A button that holds a folder."""

    directoryChanged = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._button = QPushButton()
        layout.addWidget(self._button)

    def _set(self, folder: str) -> None:
        if folder != self._button.text():
            self._button.setText(folder)
            self.directoryChanged.emit(folder)

    directory = Property(str, lambda self: self._button.text(), _set, notify=directoryChanged)


class ctkCollapsibleGroupBox(QGroupBox):
    """A group that can be folded away."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.toggled.connect(self._fold)

    def _fold(self, shown: bool) -> None:
        self.setMaximumHeight(16777215 if shown else 24)

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self._fold(self.isChecked())

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, v: self.setChecked(not v))


CUSTOM = (
    qMRMLWidget,
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkDirectoryButton,
    ctkSearchBox,
    ctkSliderWidget,
    qMRMLNodeComboBox,
)
"""All of them, for the loader of .ui files."""
