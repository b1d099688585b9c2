"""PythonQt's way of seeing Qt, on PySide6: properties are attributes, signals connect by name, errors are not hidden.

Differences from the real bridge are on the strict side: an unknown attribute or signal raises, and an exception in a
slot reaches the test (`raise_slot_errors`) where PythonQt would only print it.
"""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Callable
from typing import Any, ClassVar

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import QObject

_errors: list[BaseException] = []


def raise_slot_errors() -> None:
    """Raise the first error that a slot has raised since the last call."""
    if _errors:
        error = _errors[0]
        _errors.clear()
        raise error


def collect_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """As `sys.excepthook`: an observer of VTK ends here when it raises."""
    _errors.append(error)


def wrap(value: Any) -> Any:
    """What Python in the application would see in place of a PySide6 value."""
    if isinstance(value, QObject):
        return Wrapper(value)
    if isinstance(value, (list, tuple)):
        return type(value)(wrap(item) for item in value)
    return EnumNumber.of(value) if isinstance(value, enum.Enum) else value


def unwrap(value: Any) -> Any:
    """The PySide6 value behind what the module passes."""
    if isinstance(value, EnumNumber):
        return value.member
    return value._object if isinstance(value, Wrapper) else value


class EnumNumber(int):
    """A member of an enumeration as the application's Python sees it: a plain number."""

    member: enum.Enum

    @classmethod
    def of(cls, member: enum.Enum) -> EnumNumber:
        """The number of a member."""
        number = cls(member.value)
        number.member = member
        return number


class Signal:
    """A signal of a widget; connected callables get as many arguments as they take."""

    def __init__(self, signal: Any) -> None:
        self._signal = signal

    def connect(self, function: Callable[..., Any]) -> None:
        """Call a function whenever the signal is emitted."""
        self._signal.connect(_slot(function))


def _slot(function: Callable[..., Any]) -> Callable[..., None]:
    try:
        parameters = inspect.signature(function).parameters.values()
        variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        most = None if variadic else sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    except ValueError:  # built-in
        most = None

    def call(*arguments: Any) -> None:
        try:
            function(*(wrap(argument) for argument in arguments[:most]))
        except BaseException as error:  # kept for the test, which Qt would not tell
            _errors.append(error)

    return call


class Wrapper:
    """A QObject as the application's Python sees it."""

    _object: QObject

    def __init__(self, wrapped: QObject) -> None:
        object.__setattr__(self, "_object", wrapped)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        meta = self._object.metaObject()
        if meta.indexOfProperty(name) >= 0:
            return wrap(self._object.property(name))
        found = getattr(self._object, name)  # an AttributeError of its own where there is none
        if isinstance(found, QtCore.SignalInstance):
            return Signal(found)
        if not callable(found):
            return wrap(found)
        if name in _COUNTS:  # getters that the bridge turns into attributes
            return wrap(found())

        def method(*arguments: Any) -> Any:
            for argument in arguments:
                assert not isinstance(argument, enum.Enum), f"{name}: enumerations are numbers in the application"
            return wrap(found(*(unwrap(argument) for argument in arguments)))

        return method

    def __setattr__(self, name: str, value: Any) -> None:
        if (type(self._object).__name__, name) in _SHADOWED:
            raise AttributeError(f"{name} is a static method in the application; call set{name[0].upper()}{name[1:]}")
        if self._object.metaObject().indexOfProperty(name) < 0:
            raise AttributeError(f"{type(self._object).__name__} has no property {name!r}")
        if not self._object.setProperty(name, unwrap(value)):
            raise TypeError(f"{type(self._object).__name__}.{name} does not take {value!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Wrapper) and other._object is self._object

    def __hash__(self) -> int:
        return id(self._object)

    def connect(self, signal: str, function: Callable[..., Any]) -> None:
        """Connect by name and argument types, as "clicked(bool)"."""
        normalized = QtCore.QMetaObject.normalizedSignature(signal).data().decode()
        scene_signals = getattr(type(self._object), "SCENE_SIGNALS", ())
        if normalized in scene_signals:  # their arguments are no types of Qt
            Signal(getattr(self._object, normalized.split("(", 1)[0])).connect(function)
            return
        if self._object.metaObject().indexOfSignal(normalized) < 0:
            raise AttributeError(f"{type(self._object).__name__} has no signal {signal!r}")
        name, arguments = signal.split("(", 1)
        found = getattr(self._object, name)
        kinds = arguments.rstrip(")").strip()
        Signal(found[kinds] if kinds in ("bool", "int", "QString") and _overloaded(found, kinds) else found).connect(
            function
        )


_SHADOWED = frozenset({("QTimer", "singleShot")})
"""Properties that static methods of the same name hide."""

_COUNTS = frozenset({"count", "currentText"})


def _overloaded(signal: Any, kind: str) -> bool:
    try:
        signal[kind]
    except (KeyError, IndexError, TypeError):
        return False
    return True


class QtModule(types.ModuleType):
    """The application's module `qt`: classes of Qt by name, whose instances are wrapped; enumerations are numbers."""

    Qt: Kind

    def __init__(self) -> None:
        super().__init__("qt")
        self.Qt = Kind(QtCore.Qt)
        self.QFileDialog = _NoDialogs()
        self.QSettings = Settings

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for module in (QtWidgets, QtGui, QtCore):
            if hasattr(module, name):
                return Kind(getattr(module, name))
        raise AttributeError(f"Qt has no {name}")


class Kind:
    """A class of Qt: makes wrapped objects, and has the members of its enumerations as numbers."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __call__(self, *arguments: Any) -> Any:
        return wrap(self._kind(*(unwrap(argument) for argument in arguments)))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._kind, name)
        if callable(found) and not isinstance(found, (enum.Enum, type)):
            return lambda *arguments: wrap(found(*(unwrap(argument) for argument in arguments)))
        return wrap(found)


class Settings:
    """QSettings as long as the test lasts; booleans come back as text, as they do from a file."""

    kept: ClassVar[dict[str, Any]] = {}

    def contains(self, key: str) -> bool:
        return key in self.kept

    def value(self, key: str) -> Any:
        value = self.kept.get(key)
        return str(value).lower() if isinstance(value, bool) else value

    def setValue(self, key: str, value: Any) -> None:
        self.kept[key] = value

    def remove(self, key: str) -> None:
        self.kept.pop(key, None)


class _NoDialogs:
    """Dialogs would wait for somebody; a test says beforehand what is chosen."""

    def __init__(self) -> None:
        self.chosen: str | None = None

    def _ask(self, *_: Any) -> str:
        assert self.chosen is not None, "a dialog was opened that the test does not expect"
        return self.chosen

    getOpenFileName = getSaveFileName = getExistingDirectory = _ask
