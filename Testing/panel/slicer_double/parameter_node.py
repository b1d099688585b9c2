"""`slicer.parameterNodeWrapper` for the kinds of parameters that the module has, on a real script module node."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from .pythonqt import Wrapper


class Choice:
    """One of several texts."""

    def __init__(self, choices: Sequence[str]) -> None:
        self.choices = tuple(choices)

    def check(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {', '.join(self.choices)}")


class WithinRange:
    """A number between two, both allowed."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def check(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value!r} is not between {self.minimum} and {self.maximum}")


class Minimum:
    """A number that is not smaller than one."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def check(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"{value!r} is less than {self.minimum}")


def parameterNodeWrapper(kind: type) -> type:
    """Class decorator: annotations become parameters that are kept as text in the node."""
    hints = get_type_hints(kind, include_extras=True)
    members: dict[str, Any] = {"_hints": hints, "_defaults": {name: getattr(kind, name, None) for name in hints}}
    members |= {name: _parameter(name) for name in hints}
    return type(kind.__name__, (_Wrapped,), members)


def _parameter(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, value: self.setValue(name, value))


def _base(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _rules(hint: Any) -> tuple[Any, ...]:
    return get_args(hint)[1:] if get_origin(hint) is Annotated else ()


class _Wrapped:
    _hints: dict[str, Any]
    _defaults: dict[str, Any]

    def __init__(self, parameterNode: Any) -> None:
        object.__setattr__(self, "parameterNode", parameterNode)
        object.__setattr__(self, "_connections", {})
        object.__setattr__(self, "allParameters", self._hints)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._hints:
            raise AttributeError(f"there is no parameter {name!r}")
        self.setValue(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in ("AddObserver", "RemoveObserver", "StartModify", "EndModify", "Modified"):
            return getattr(self.parameterNode, name)
        raise AttributeError(name)

    def default(self, name: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(value=self._defaults[name])

    def getValue(self, name: str) -> Any:
        kind = _base(self._hints[name])
        if kind not in (str, bool, float, int):
            return self.parameterNode.GetNodeReference(name)
        text = self.parameterNode.GetParameter(name)
        if not self.parameterNode.GetParameterNamesAsCommaSeparatedList().split(",").count(name):
            return self._defaults[name]
        return text == "True" if kind is bool else kind(text)

    def setValue(self, name: str, value: Any) -> None:
        kind = _base(self._hints[name])
        if kind not in (str, bool, float, int):
            self.parameterNode.SetNodeReferenceID(name, value.GetID() if value is not None else None)
            self.parameterNode.Modified()
            return
        if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
            raise TypeError(f"{name}: {value!r} is no {kind.__name__}")
        for rule in _rules(self._hints[name]):
            rule.check(value)
        if self.getValue(name) != value:
            self.parameterNode.SetParameter(name, str(value))

    def connectGui(self, ui: Any) -> int:
        """Bind every widget with a dynamic property SlicerParameterName to its parameter."""
        bound: list[Callable[[], None]] = []
        active = [False]  # what is shown is not taken for what the user does
        for widget in vars(ui).values():
            name = widget._object.property("SlicerParameterName")
            if name:
                bound.append(self._bind(widget, name, active))

        def update(*_: Any) -> None:
            before, active[0] = active[0], False
            for show in bound:
                show()
            active[0] = before

        tag = self.parameterNode.AddObserver("ModifiedEvent", update)
        update()
        active[0] = True
        self._connections[tag] = active
        return int(tag)

    def disconnectGui(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)
        self._connections.pop(tag)[0] = False

    def _bind(self, widget: Wrapper, name: str, active: list[bool]) -> Callable[[], None]:
        hint = self._hints[name]
        kind = type(widget._object).__name__
        rules = _rules(hint)
        if kind == "QComboBox":
            widget._object.clear()  # on every connection, as in the application
            widget._object.addItems([str(choice) for choice in rules[0].choices])
            changed = widget._object.currentIndexChanged
            read = lambda: rules[0].choices[widget._object.currentIndex()]  # noqa: E731
            write = lambda value: widget._object.setCurrentIndex(rules[0].choices.index(value))  # noqa: E731
        elif kind == "ctkSliderWidget":
            widget.minimum, widget.maximum = rules[0].minimum, rules[0].maximum
            changed, read, write = _access(widget, "valueChanged", "value")
        elif kind == "QSpinBox":
            widget._object.setRange(rules[0].minimum if rules else -(2**31), 2**31 - 1)
            changed, read, write = _access(widget, "valueChanged", "value")
        elif kind == "qMRMLNodeComboBox":
            widget._object.setProperty("nodeTypes", [_base(hint).__name__])  # whatever the .ui file says
            changed, read = widget._object.currentNodeChanged, widget._object.currentNode
            write = widget._object.setCurrentNode
        else:
            signal, attribute = {"QLineEdit": ("textChanged", "text"), "QCheckBox": ("toggled", "checked")}[kind]
            changed, read, write = _access(widget, signal, attribute)

        def store(*_: Any) -> None:
            if active[0]:
                self.setValue(name, read())

        def show() -> None:
            value = self.getValue(name)
            if read() != value:
                write(value)

        changed.connect(store)
        return show


def _access(widget: Wrapper, signal: str, attribute: str) -> tuple[Any, Callable[[], Any], Callable[[Any], None]]:
    return (
        getattr(widget._object, signal),
        lambda: getattr(widget, attribute),
        lambda value: setattr(widget, attribute, value),
    )
