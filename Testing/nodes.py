"""Nodes for tests: in this process, and as an operator starts them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from MediScanLib.pacs.listening import Listener
from MediScanLib.pacs.node import Node
from MediScanLib.pacs.queue import Queue
from MediScanLib.pacs.settings import MEBIBYTE, PacsSettings

MODEL = "toy-random"


def until(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    """Wait for something; what it gave at last."""
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


class RunningNode:
    """A node in this process, with its port."""

    def __init__(self, settings: PacsSettings, *, listening: bool = True) -> None:
        self.settings = settings
        self.node = Node(settings)
        self.listener: Listener | None = None
        if listening:
            self.listener = Listener(
                settings.listen,
                self.node.intake,
                self.node.connections,
                self.node.wake,
                settings.limits.instance_mb * MEBIBYTE,
            )
        self.node.start()

    @property
    def port(self) -> int:
        assert self.listener is not None
        return self.listener.address[1]

    @property
    def queue(self) -> Queue:
        return self.node.queue

    def is_idle(self) -> bool:
        return self.queue.counts().is_idle

    def stop(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        self.node.stop(5.0)


class NodeProcess:
    """`mediscan listen` or `mediscan poll` as an operator starts it."""

    def __init__(self, command: str, settings: PacsSettings, folder: Path, *options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "node.yaml"
        self.config.write_text(yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True, exclude_unset=True)))
        self.log = folder / "log.txt"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "MediScanLib.cli", command, "--config", str(self.config), *options],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).resolve().parents[1],
            )

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def queue(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "MediScanLib.cli", "queue", "--config", str(self.config), *arguments],
            capture_output=True,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
            check=False,
        )
        return done.stdout + done.stderr

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
