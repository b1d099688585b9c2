"""The YAML file with the settings; errors name the line, and the rule it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from .settings import PacsSettings

_MOST_BYTES = 1024**2
_MOST_NODES = 50_000


def load_settings(path: Path) -> PacsSettings:
    """Read and check a file of settings.

    Relative paths in it are taken from the folder it lies in.

    Raises:
        ConfigError: The file, the line, the key and what is wrong there; all of them, not only the first.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Give a YAML file, see docs/pacs.md.") from error
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"{path}: is larger than 1 MiB and so no file of settings.")
    try:
        node = yaml.compose(content, Loader=yaml.SafeLoader)
        _check_nodes(path, node)
        given = yaml.safe_load(content)
    except yaml.MarkedYAMLError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigError(f"{path}, line {line}: is not YAML: {error.problem}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: is not YAML ({str(error).splitlines()[0]}).") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: needs at least the sections destinations and rules, see docs/pacs.md.")
    try:
        settings = PacsSettings.model_validate(given)
    except ValidationError as error:
        lines = [_told(path, node, given, found["loc"], found["msg"]) for found in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error
    return _with_absolute_paths(settings, path.absolute().parent)


def _check_nodes(path: Path, root: yaml.Node | None) -> None:
    """No key twice, of which YAML would silently take the last; no aliases, which could make a file endless."""
    waiting, seen = [root], 0
    met: set[int] = set()
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _MOST_NODES or (node is not None and id(node) in met):
            raise ConfigError(f"{path}: uses YAML aliases, or is far too long. Write everything out.")
        if isinstance(node, yaml.MappingNode | yaml.SequenceNode):
            met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                if str(key.value) in keys:
                    raise ConfigError(f"{path}, line {key.start_mark.line + 1}: {key.value!r} stands there twice.")
                keys.add(str(key.value))
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _told(path: Path, root: yaml.Node | None, given: Any, place: Sequence[int | str], message: str) -> str:
    line, names = 1, []
    node: yaml.Node | None = root
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = [(key, value) for key, value in node.value if str(key.value) == str(part)]
            if not found:
                if part not in _KINDS:  # a key that is missing, and not the name of a kind
                    names.append(str(part))
                continue
            line, node = found[0][0].start_mark.line + 1, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        names.append(f"[{part}]" if isinstance(part, int) else str(part))
    where = ".".join(names).replace(".[", "[")
    rule = ""
    if len(place) > 2 and place[0] == "rules" and isinstance(place[1], int):
        content = given["rules"][place[1]]
        name = content.get("name") if isinstance(content, dict) else None
        rule = f" (rule {name!r})" if isinstance(name, str) else ""
    said = message.removeprefix("Value error, ")
    return f"{path}, line {line}: {where + rule + ': ' if where else ''}{said}."


_KINDS = ("c-store", "stow-rs")


def _with_absolute_paths(part: Any, folder: Path) -> Any:
    """The same settings, with every path made absolute."""
    changed: dict[str, Any] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Path):
            changed[name] = folder / value.expanduser()
        elif isinstance(value, BaseModel):
            changed[name] = _with_absolute_paths(value, folder)
        elif isinstance(value, dict):
            changed[name] = {key: _with_absolute_paths(item, folder) for key, item in value.items()}
    return part.model_copy(update=changed)
