"""The web page for tests: a REST server and the gateway beside it, on free ports of this machine."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from serving import PATIENCE, RunningServer, free_port

from MediScanLib.web.settings import ENVIRONMENT, WebSettings

PATIENCE_MS = 60_000
STILL_S = 0.4
# The views' pictures; nothing while one of them was drawn for a view of another shape.
DRAWN = """[...document.querySelectorAll('.view img')].every((one) =>
    Math.abs(one.naturalWidth / one.naturalHeight * one.height / one.width - 1) < 0.02)
    ? [...document.querySelectorAll('.view img')].map((one) => one.src).join() : ''"""
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def chromium() -> str:
    """The browser; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium (apt-get install chromium): nothing is tried in a browser")
    return CHROMIUM


class RunningPage:
    """The gateway's process, and the REST server that predicts for it."""

    def __init__(self, server: RunningServer, **settings) -> None:
        self.server = server
        self.settings = WebSettings(server=server.settings, port=free_port(), **settings)
        self.url = f"{'https' if server.settings.tls_certificate else 'http'}://127.0.0.1:{self.settings.port}"
        self.log = server.folder.parent / f"{server.folder.name}-web-{self.settings.port}.log"
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        environment = {**os.environ, ENVIRONMENT: self.settings.model_dump_json(), "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "MediScanLib.web.gateway"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=environment,
                cwd=Path(__file__).parents[1],
            )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process.poll() is None, self.said()
            try:
                httpx.get(f"{self.url}/alive", timeout=5, verify=False)
                return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"the page does not get ready\n{self.said()}")

    def stop(self) -> None:
        """As it ends with the server that started it: its standard input is closed."""
        if self.process is not None:
            self.process.stdin.close()
            self.process.wait(PATIENCE)
            self.process = None

    def client(self) -> httpx.Client:
        """A browser without a screen: it keeps cookies and says where it comes from."""
        return httpx.Client(base_url=self.url, timeout=PATIENCE, verify=False, headers={"Origin": self.url})

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> RunningPage:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Reader:
    """Somebody at the page."""

    def __init__(self, browser, url, size=(1366, 900)):
        self.url = url
        self.context = browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.asked, self.errors = [], []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def come(self):
        self.page.goto(self.url)
        self.page.wait_for_selector("#run")
        return self

    def leave(self):
        self.context.request.post(f"{self.url}/sign-out", max_redirects=0)  # the next page would be a new study
        self.context.close()

    def upload(self, *files):
        self.page.set_input_files("#files", list(files))
        self.page.wait_for_selector("#view-main img")

    def sample(self):
        self.page.click("text=Phantom with an opacity")
        self.page.wait_for_selector("#view-main img")

    def run(self):
        self.page.click("#run")
        self.page.wait_for_function("document.querySelector('#status').textContent.startsWith('Done')")
        self.still()

    def still(self):
        """Wait until the views have come to rest, each drawn at the size that it has on the page."""
        before = None
        end = time.monotonic() + 60
        while time.monotonic() < end:
            now = self.page.evaluate(DRAWN)
            if now and now == before:
                return
            before = now
            time.sleep(STILL_S)
        raise AssertionError("the views do not come to rest")

    def picture(self, view="#view-main"):
        """(row, column, 3) of what a view shows, without what the page lays over it."""
        self.still()
        data = self.page.evaluate(
            """(view) => { const image = document.querySelector(view + ' img');
            const canvas = document.createElement('canvas');
            canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
            canvas.getContext('2d').drawImage(image, 0, 0);
            return canvas.toDataURL('image/png').split(',')[1]; }""",
            view,
        )
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)

    def slide(self, name, value):
        self.page.fill(f"#{name}", str(value))

    def text(self, selector):
        return self.page.inner_text(selector)

    def result(self):
        return json.loads(self.context.request.get(f"{self.url}/export/json").text())[0]
