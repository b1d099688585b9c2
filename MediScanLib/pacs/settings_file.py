"""The YAML file with the settings; errors name the line, and the rule it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from .destinations import PlacedError
from .rules import Rule
from .settings import PacsSettings

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

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
    node, given = _parsed(path, content)
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: needs at least the sections destinations and rules, see docs/pacs.md.")
    try:
        settings = PacsSettings.model_validate(given)
    except ValidationError as error:
        lines = [_told(path, node, given, found) for found in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from error
    return _with_absolute_paths(settings, path.absolute().parent)


def _parsed(path: Path, content: bytes) -> tuple[yaml.Node | None, Any]:
    """The nodes of a YAML file, which know their lines, and what they stand for."""
    try:
        loader = yaml.SafeLoader(content)
        node = loader.get_single_node()
        if node is None:
            return None, None
        _check_nodes(path, node)
        return node, loader.construct_document(node)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        line = 0 if error.problem_mark is None else error.problem_mark.line + 1
        raise ConfigError(f"{path}, line {line}: is not YAML: {error.problem}.") from error
    except Exception as error:  # a number that is none ends PyYAML in many ways
        said = str(error).splitlines() if isinstance(error, yaml.YAMLError) else []
        raise ConfigError(f"{path}: is not YAML ({said[0] if said else type(error).__name__}).") from error


def _check_nodes(path: Path, root: yaml.Node) -> None:
    """No key twice, of which YAML would silently take the last; no aliases, which could make a file endless."""
    waiting, seen = [root], 0
    met: set[int] = set()
    while waiting:
        node = waiting.pop()
        line = f"{path}, line {node.start_mark.line + 1}"
        seen += 1
        if seen > _MOST_NODES:
            raise ConfigError(f"{line}: is too far down for a file of settings. Shorten it.")
        if id(node) in met:
            raise ConfigError(f"{line}: is used again as a YAML alias. Write everything out.")
        if node.tag not in _TAGS:
            raise ConfigError(
                f"{line}: is no text, number, list or section ({node.tag}). Write it without a YAML tag."
            )
        if isinstance(node, yaml.MappingNode | yaml.SequenceNode):
            met.add(id(node))
        if isinstance(node, yaml.MappingNode):
            keys: set[str] = set()
            for key, value in node.value:
                line = f"{path}, line {key.start_mark.line + 1}"
                if not isinstance(key, yaml.ScalarNode) or key.tag not in _TAGS:
                    raise ConfigError(f"{line}: a key is a plain word. Write everything out.")
                if key.value in keys:
                    raise ConfigError(f"{line}: {key.value!r} stands there twice. Keep one of them.")
                keys.add(key.value)
                waiting.append(value)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _told(path: Path, root: yaml.Node | None, given: dict[Any, Any], found: ErrorDetails) -> str:
    """What pydantic found, with the line it stands in and the names that lead there."""
    message, cause = found["msg"].removeprefix("Value error, "), found.get("ctx", {}).get("error")
    place: tuple[int | str, ...] = found["loc"]
    if isinstance(cause, PlacedError):
        place += cause.place
        message = message.removeprefix(f"{place[-1]}: ")
    line, names = 1, []
    node = root
    for part in place:
        if isinstance(node, yaml.MappingNode):
            values = [(key, value) for key, value in node.value if key.value == str(part)]
            if not values:
                if part not in _KINDS:  # a key that is missing, and not the name of a kind
                    names.append(str(part))
                continue
            line, node = values[0][0].start_mark.line + 1, values[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        names.append(f"[{part}]" if isinstance(part, int) else str(part))
    where = ".".join(names).replace(".[key]", "").replace(".[", "[")
    rule = ""
    if len(place) > 1 and place[0] == "rules" and isinstance(place[1], int):
        content = given["rules"][place[1]]
        name = content.get("name") if isinstance(content, dict) else None
        rule = f" (rule {name!r})" if isinstance(name, str) else ""
    said = _SAID.get(found["type"], message)
    return f"{path}, line {line}: {where + rule + ': ' if where else ''}{said}."


_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null")}
_SAID = {
    "extra_forbidden": "is not known here. Take it out, or see docs/pacs.md",
    "missing": "is missing. Give it, see docs/pacs.md",
}
_KINDS = ("c-store", "stow-rs")


def _with_absolute_paths(part: Any, folder: Path) -> Any:
    """The same settings, with every path made absolute."""
    changed: dict[str, Any] = {}
    for name in type(part).model_fields:
        value = getattr(part, name)
        if isinstance(value, Path):
            changed[name] = folder / value
        elif isinstance(value, BaseModel):
            changed[name] = _with_absolute_paths(value, folder)
        elif isinstance(value, dict):
            changed[name] = {key: _with_absolute_paths(item, folder) for key, item in value.items()}
        elif isinstance(part, PacsSettings) and name == "rules":
            changed[name] = tuple(_with_absolute_model(rule, folder) for rule in value)
    return part.model_copy(update=changed)


def _with_absolute_model(rule: Rule, folder: Path) -> Rule:
    """The same rule; where its model is a path and not a name, with an absolute one."""
    if Path(rule.model).name == rule.model:
        return rule
    return rule.model_copy(update={"model": str(folder / rule.model)})
