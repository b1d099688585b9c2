"""The process in which uploads are decoded; `python -m MediScanLib.server.reader_child MEMORY_BYTES`.

It reads requests as JSON lines from standard input, `{"folder", "file", "series", "name", "limit"}`, and answers each
with one line on standard output: `{"ok": true}` once the image lies in the folder as `exchange.write_request` writes
it, or `{"error": {"code", "message"}}`. It ends with its standard input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..prediction.exchange import Request, describe_error, write_request
from ..study.decoder_child import limit_memory
from ..study.reading import read_image


def read(asked: dict[str, Any]) -> dict[str, object]:
    """Decode an upload.

    Raises:
        MediScanError: It cannot be read.
    """
    folder = Path(asked["folder"])
    source = folder / "files" / asked["file"] if asked["file"] else folder / "files"
    image = read_image(source, series=asked["series"], memory_limit_bytes=asked["limit"], name=asked["name"])
    write_request(Request(image), folder)
    return {"ok": True}


def answer_lines(work: Callable[[dict[str, Any]], dict[str, object]]) -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):  # decoders print; nothing of it may get into the answers or the server's log
        os.dup2(silence, descriptor)
    limit_memory(int(sys.argv[1]))
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, object]
        try:
            answer = work(asked)
        except Exception as error:  # whatever a file does is an answer
            answer = {"error": describe_error(error)}
            if not hasattr(error, "code"):
                answer = {
                    "error": {
                        "code": "corrupt",
                        "message": f"{asked.get('name', 'the upload')}: cannot be read. Export it again.",
                    }
                }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    answer_lines(read)
