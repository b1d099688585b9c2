"""Puts the stand-ins in place of the application's modules, and the module's panel into a window."""

from __future__ import annotations

import importlib.util
import sys
import types
import unittest
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import packaging.requirements
from PySide6.QtUiTools import QUiLoader
from PySide6.QtWidgets import QApplication, QVBoxLayout, QWidget

from . import parameter_node
from .pythonqt import QtModule, Wrapper, collect_error, raise_slot_errors, wrap
from .widgets import CUSTOM

ROOT = Path(__file__).resolve().parents[3]
MODULE = ROOT / "MediScan" / "MediScan.py"


class App:
    """`slicer.app`: no main window, testing mode as the test wants it."""

    applicationName = "Slicer"

    def __init__(self, logic: Any) -> None:
        self.testing = True
        self.started: list[Any] = []
        self._logic = logic

    def applicationLogic(self) -> Any:
        return self._logic

    def testingEnabled(self) -> bool:
        return self.testing

    def connect(self, signal: str, function: Any) -> None:
        assert signal in ("startupCompleted()", "aboutToQuit()"), signal
        self.started.append(function)

    def layoutManager(self) -> None:
        return None

    def topLevelWidgets(self) -> list[Any]:
        return []

    def style(self) -> Wrapper:
        return Wrapper(QApplication.style())

    def processEvents(self) -> None:
        QApplication.processEvents()

    def setOverrideCursor(self, cursor: Any) -> None:
        pass

    def restoreOverrideCursor(self) -> None:
        pass


class ScriptedLoadableModule:
    def __init__(self, parent: Any) -> None:
        self.parent = parent


class ScriptedLoadableModuleWidget:
    """Base of the panel."""

    def __init__(self, parent: Any = None) -> None:
        self.parent = parent
        self.window = QWidget()
        self._column = QVBoxLayout(self.window)
        self.layout = types.SimpleNamespace(addWidget=lambda widget: self._column.addWidget(widget._object))

    def setup(self) -> None:
        pass

    def resourcePath(self, name: str) -> str:
        return str(MODULE.parent / "Resources" / name)


class ScriptedLoadableModuleLogic:
    """Base of the logic: one parameter node in the scene."""

    def __init__(self) -> None:
        pass

    def getParameterNode(self) -> Any:
        import slicer

        node = slicer.mrmlScene.GetSingletonNode("MediScan", "vtkMRMLScriptedModuleNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag("MediScan")
            node.SetModuleName("MediScan")
            node = slicer.mrmlScene.AddNode(node)
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base of the module's own tests."""


def load_ui(path: str) -> Wrapper:
    """The panel's .ui file with the widgets of `widgets.CUSTOM`."""
    loader = QUiLoader()
    for kind in CUSTOM:
        loader.registerCustomWidget(kind)
    widget = loader.load(path)
    assert widget is not None, loader.errorString()
    for connection in ElementTree.parse(path).iter("connection"):
        sender, signal, receiver, slot = (
            connection.findtext(part) for part in ("sender", "signal", "receiver", "slot")
        )
        assert (sender, signal, slot) == (
            widget.objectName(),
            "mrmlSceneChanged(vtkMRMLScene*)",
            "setMRMLScene(vtkMRMLScene*)",
        ), "a connection that is not known here"
        child = widget.findChild(QWidget, receiver)
        assert child is not None, f"a connection to {receiver!r}, which is not there"
        widget.mrmlSceneChanged.connect(child.setMRMLScene)
    return Wrapper(widget)


def children(widget: Wrapper) -> types.SimpleNamespace:
    """Named widgets inside a widget, as attributes."""
    named = {child.objectName(): child for child in widget._object.findChildren(QWidget) if child.objectName()}
    return types.SimpleNamespace(**{name: wrap(child) for name, child in named.items() if not name.startswith("qt_")})


@contextmanager
def application(core: Any) -> Iterator[types.ModuleType]:
    """The module `slicer` with everything around it; what stood in `sys.modules` comes back afterwards."""
    import slicer
    import slicer.util

    QApplication.instance() or QApplication([])
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr, i18n.translate = (lambda text: text), (lambda context, text: text)  # type: ignore[attr-defined]
    base = types.ModuleType("slicer.ScriptedLoadableModule")
    for kind in (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    ):
        setattr(base, kind.__name__, kind)
    wrapper = types.ModuleType("slicer.parameterNodeWrapper")
    for item in (
        parameter_node.Choice,
        parameter_node.Minimum,
        parameter_node.WithinRange,
        parameter_node.parameterNodeWrapper,
    ):
        setattr(wrapper, item.__name__, item)
    packages = types.ModuleType("slicer.packaging")
    packages.load_requirements = _requirements  # type: ignore[attr-defined]
    packages.pip_check = _installed  # type: ignore[attr-defined]
    modules: dict[str, Any] = {
        "qt": QtModule(),
        "ctk": types.ModuleType("ctk"),
        "slicer.i18n": i18n,
        "slicer.ScriptedLoadableModule": base,
        "slicer.parameterNodeWrapper": wrapper,
        "slicer.packaging": packages,
    }
    before = {name: sys.modules.get(name) for name in modules}
    attributes = {
        "app": App(core.app_logic),
        "mrmlScene": core.scene,
        "modules": types.SimpleNamespace(),
        "packaging": packages,
        "i18n": i18n,
    }
    kept = {name: getattr(slicer, name, None) for name in attributes}
    util = {
        "loadUI": load_ui,
        "childWidgetVariables": children,
        "saveScene": core.io_manager.save_scene,
        "loadScene": core.io_manager.load_scene,
    }
    real = {name: getattr(slicer.util, name) for name in util}
    sys.modules.update(modules)
    for owner, values in ((slicer, attributes), (slicer.util, util)):
        for name, value in values.items():
            setattr(owner, name, value)
    hook, sys.excepthook = sys.excepthook, collect_error
    try:
        yield slicer
    finally:
        sys.excepthook = hook
        for name, value in before.items():
            if value is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = value
        for owner, values in ((slicer, kept), (slicer.util, real)):
            for name, value in values.items():
                setattr(owner, name, value)


def load_module() -> types.ModuleType:
    """MediScan.py, loaded anew."""
    spec = importlib.util.spec_from_file_location("MediScan", MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def settle() -> None:
    """Let Qt work off what is waiting, and raise what went wrong in a slot."""
    QApplication.processEvents()
    raise_slot_errors()


def _requirements(path: Path) -> list[packaging.requirements.Requirement]:
    lines = (line.split("#")[0].strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [packaging.requirements.Requirement(line) for line in lines if line]


def _installed(wanted: Any) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    for item in wanted if isinstance(wanted, list) else [wanted]:
        requirement = packaging.requirements.Requirement(str(item))
        try:
            if not requirement.specifier.contains(version(requirement.name), prereleases=True):
                return False
        except PackageNotFoundError:
            return False
    return True
