"""What a long run has finished: one line a piece, on the disk before the next is begun.

Killed and started again, a run takes what is there and does the rest. A line that was cut short by the kill is
dropped; a file of a run with other settings is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError, UsageError, WriteError
from ...writing import atomic_write

FORMAT = 1
_SHOWN = 60
"""Letters of a setting in a message."""


class Journal:
    """Finished pieces of a run, by key.

    Args:
        path: JSON lines; the first names the run.
        identity: Everything that the pieces depend on.

    Raises:
        UsageError: The file belongs to a run with other settings.
        DataError: The file is no journal, or a line in the middle is damaged.
        WriteError: The place cannot be written.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self._path = path
        self._done: dict[str, Any] = {}
        own = json.loads(json.dumps(identity, allow_nan=False))  # as it will be read again
        if path.exists():
            self._resume(own)
        else:
            with atomic_write(path) as stream:
                stream.write(_line({"format": FORMAT, "identity": own}))
        self.found = len(self._done)
        self._open()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def __contains__(self, key: Sequence[str]) -> bool:
        return _name(key) in self._done

    def get(self, key: Sequence[str]) -> Any:
        """The finished piece of that key, None where there is none."""
        return self._done.get(_name(key))

    def put(self, key: Sequence[str], value: Any) -> None:
        """Keep a finished piece.

        Args:
            key: Its name.
            value: JSON-ready, finite.

        Raises:
            WriteError: The disk is full, or the place cannot be written.
        """
        try:
            self._stream.write(_line({"key": list(key), "value": value}))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise WriteError(
                f"{self._path}: cannot be written ({error.strerror or error}). Free some space and start again: what "
                "was finished before is kept."
            ) from error
        self._done[_name(key)] = value

    def _open(self) -> None:
        try:
            self._stream = self._path.open("ab")
        except OSError as error:
            raise WriteError(f"{self._path}: cannot be written ({error.strerror or error}).") from error

    def _resume(self, own: Mapping[str, Any]) -> None:
        try:
            content = self._path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            lines = whole.splitlines()
            header = json.loads(lines[0])
            identity = header["identity"]
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']}")
            for line in lines[1:]:
                entry = json.loads(line)
                self._done[_name(entry["key"])] = entry["value"]
        except OSError as error:
            raise DataError(f"{self._path}: cannot be read ({error.strerror or error}).") from error
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(
                f"{self._path}: is not what an earlier run wrote, or was damaged ({error}). Remove the file to begin "
                "anew, or choose another folder."
            ) from error
        if identity != own:
            raise UsageError(
                f"{self._path.parent} holds a run with other settings: {_differences(identity, own)}. Give the same "
                "settings to go on, or choose another folder."
            )
        if len(whole) < len(content):  # the last line was cut short
            os.truncate(self._path, len(whole))


def _name(key: Sequence[str]) -> str:
    return json.dumps(list(key))


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} was {_shown(before.get(name))}, now {_shown(now.get(name))}"
        for name in dict.fromkeys((*before, *now))
        if before.get(name) != now.get(name)
    )


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
