"""A real archive for tests and benchmarks: Debian's Orthanc with its DICOMweb plug-in, on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
from serving import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def orthanc_program() -> str | None:
    """Path of Orthanc where it and its DICOMweb plug-in are installed."""
    program = shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin")
    return program if PLUGIN.exists() else None


class Orthanc:
    """One archive, with what it stores below a folder; it can be killed and started again."""

    def __init__(self, folder: Path, peers: dict[str, tuple[str, int]] | None = None, **options: Any) -> None:
        program = orthanc_program()
        assert program is not None
        self._program, self._folder = program, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.http_port, self.dicom_port = free_port(), free_port()
        self._config = folder / "orthanc.json"
        self._config.write_text(
            json.dumps(
                {
                    "Name": "Archive",
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "index"),
                    "HttpPort": self.http_port,
                    "DicomPort": self.dicom_port,
                    "DicomAet": "ARCHIVE",
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "DicomModalities": {
                        key: [title, "127.0.0.1", port] for key, (title, port) in (peers or {}).items()
                    },
                    "DicomScuTimeout": 30,
                    "Plugins": [str(PLUGIN)],
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                    **options,
                }
            )
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.http_port}", timeout=60)

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def start(self) -> Orthanc:
        with (self._folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, str(self._config)], stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(300):
            try:
                if self.client.get("/system").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.1)
        raise RuntimeError((self._folder / "orthanc.log").read_text()[-2000:])

    def kill(self) -> None:
        """As a power cut would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def upload(self, path: Path) -> str:
        """Put a file in; the archive's own id of its study comes back."""
        answer = self.client.post("/instances", content=path.read_bytes())
        answer.raise_for_status()
        return str(answer.json()["ParentStudy"])

    def send(self, study: str, peer: str) -> None:
        """Have a study sent to a peer by C-STORE."""
        self.client.post(f"/modalities/{peer}/store", json=[study]).raise_for_status()

    def studies(self) -> list[str]:
        return list(self.client.get("/studies").json())

    def modalities(self, study: str) -> list[str]:
        """Of all objects of a study, in alphabetical order."""
        return sorted(
            series["MainDicomTags"]["Modality"]
            for series in self.client.get(f"/studies/{study}/series").json()
            for _ in series["Instances"]
        )

    def objects(self, study: str) -> list[tuple[str, bytes]]:
        """(SOP Instance UID, file) of all objects of a study."""
        return [
            (
                one["MainDicomTags"]["SOPInstanceUID"],
                self.client.get(f"/instances/{one['ID']}/file").content,
            )
            for one in self.client.get(f"/studies/{study}/instances").json()
        ]
