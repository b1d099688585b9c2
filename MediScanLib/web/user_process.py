"""The process behind one browser: `python -m MediScanLib.web.user_process`.

It prints `{"port": N}` once it can show the page, waits on standard input for a line of `UserSettings`, prints
`{"begun": true}` once it listens to the key in it, and ends with its standard input. What belongs into the audit log
goes to standard output, a JSON line each.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from .settings import UserSettings


class Told:
    """Writes lines to the gateway."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
        silence = os.open(os.devnull, os.O_RDWR)
        os.dup2(silence, 1)
        if not os.environ.get("MEDISCAN_WEB_DEBUG"):
            os.dup2(silence, 2)  # libraries print names and values, which no log may hold

    def __call__(self, content: dict[str, Any]) -> None:
        """Write one line."""
        self._stream.write(json.dumps(content) + "\n")
        self._stream.flush()


async def _run(told: Told) -> None:
    from trame.app import get_server

    from .app import App
    from .routes import add_routes

    server = get_server("mediscan", client_type="vue3")
    app = App(server, lambda event, details: told({"event": event, "details": details}))
    server.controller.on_server_bind.add(lambda bound: add_routes(bound.app, app))
    running = asyncio.create_task(
        server.start(
            port=0,
            host="127.0.0.1",
            exec_mode="coroutine",
            open_browser=False,
            show_connection_info=False,
            disable_logging=True,
            timeout=0,
        )
    )
    await asyncio.wait({running, asyncio.ensure_future(server.ready)}, return_when=asyncio.FIRST_COMPLETED)
    told({"port": server.port})
    line = await asyncio.to_thread(sys.stdin.readline)
    if line:
        app.begin(UserSettings.model_validate_json(line))
        told({"begun": True})
        await asyncio.to_thread(sys.stdin.read)


def main() -> None:
    """Serve until standard input ends."""
    told = Told()
    sys.argv = sys.argv[:1]  # trame would read them
    try:
        asyncio.run(_run(told))
    finally:
        os._exit(0)  # threads that wait for a server must not keep a study in memory


if __name__ == "__main__":
    main()
