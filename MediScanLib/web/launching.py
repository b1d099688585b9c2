"""Starts the gateway beside the REST server."""

from __future__ import annotations

import os
import subprocess
import sys

from ..errors import UsageError
from .settings import ENVIRONMENT, WebSettings


def check_packages() -> None:
    """Look whether what the page needs is installed.

    Raises:
        UsageError: It is not.
    """
    from importlib.util import find_spec

    for name in ("aiohttp", "trame", "trame_slicer", "slicer"):
        if find_spec(name) is None:
            raise UsageError(
                f"The web page needs more packages ({name} is not there). Install MediScan with [web]: "
                "pip install 'mediscan[web]'."
            )


def start_gateway(settings: WebSettings) -> subprocess.Popen[bytes]:
    """Start the process that serves the page; it ends with this process, however that ends.

    Args:
        settings: How the page is set up.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "MediScanLib.web.gateway"],
        stdin=subprocess.PIPE,
        env={**os.environ, ENVIRONMENT: settings.model_dump_json()},
        start_new_session=True,  # Ctrl+C is for the server; the gateway ends with its standard input
    )
