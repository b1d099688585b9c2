"""Real servers for tests: uvicorn in a process of its own, on a free port of this machine."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from MediScanLib.network.bundle import save_bundle
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.server.settings import ENVIRONMENT, ServerSettings
from toys import make_card

PATIENCE = 120.0


def make_bundle(folder: Path, name: str = "toy-random") -> None:
    """A bundle on disk whose answers mean nothing, but depend on image and record."""
    torch.manual_seed(1)
    card = make_card(name=name)
    network = FusionNetwork.build(card.network)
    with torch.no_grad():
        for part in (network.fusion, network.disease, network.severity):
            for parameter in part.parameters():
                parameter.normal_(std=max(1, parameter.shape[-1]) ** -0.5)
    save_bundle(network, card, folder)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class RunningServer:
    """A server process with the settings that are given, and its database in `folder`."""

    def __init__(self, folder: Path, bundles: Path, *, start: bool = True, **settings) -> None:
        self.folder, self.bundles = folder, bundles
        self.port = free_port()
        self.settings = ServerSettings(
            **{"folder": folder, "port": self.port, "models": ("toy-random",), "device": "cpu", **settings}
        )
        self.url = f"{'https' if self.settings.tls_certificate else 'http'}://127.0.0.1:{self.port}"
        self.log = folder.parent / f"{folder.name}.log"
        self.process: subprocess.Popen | None = None
        if start:
            self.start()

    def start(self, *, wait: bool = True) -> None:
        environment = {
            **os.environ,
            ENVIRONMENT: self.settings.model_dump_json(),
            "MEDISCAN_MODELS": str(self.bundles),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "uvicorn", "MediScanLib.server.app:worker_app", "--factory"]
        command += [
            "--port",
            str(self.port),
            "--host",
            "127.0.0.1",
            "--no-access-log",
            "--no-server-header",
            "--log-level",
            "warning",
        ]
        command += ["--timeout-graceful-shutdown", str(int(self.settings.stop_s) + 1)]
        if self.settings.tls_certificate:
            command += ["--ssl-certfile", str(self.settings.tls_certificate)]
            command += ["--ssl-keyfile", str(self.settings.tls_key)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=Path(__file__).parents[1]
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/v1/ready", verify=False, timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        raise AssertionError(f"the server does not get ready\n{self.log.read_text()}")

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(PATIENCE)
            self.process = None

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, verify=False)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> RunningServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)


def wait_for_job(client: httpx.Client, identity: str, *states: str) -> dict:
    """The job once it is in one of those states."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        job = client.get(f"/v1/jobs/{identity}").json()
        if job["state"] in (states or ("done", "failed", "cancelled")):
            return job
        time.sleep(0.1)
    raise AssertionError(json.dumps(job))


def png(seed: int = 0, size: tuple[int, int] = (60, 80)) -> bytes:
    rng = np.random.default_rng(seed)
    stream = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, size, dtype=np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


def dicom_slices(count: int, size: int = 16) -> list[bytes]:
    """A CT series, the patient of which must not show up anywhere."""
    rng = np.random.default_rng(5)
    series, study = generate_uid(), generate_uid()
    files = []
    for position in range(count):
        dataset = Dataset()
        dataset.PatientName, dataset.PatientID = "Geheim^Petra", "SECRET-ID-77"
        dataset.PatientAge, dataset.PatientSex = "044Y", "F"
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.Modality, dataset.BodyPartExamined = "CT", "CHEST"
        dataset.Rows = dataset.Columns = size
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.PixelSpacing, dataset.SliceThickness = [0.8, 0.7], 2
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [-10, 20, 2.0 * position]
        dataset.PixelData = rng.integers(-1000, 1000, (size, size)).astype("<i2").tobytes()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        stream = io.BytesIO()
        dataset.save_as(stream, enforce_file_format=True)
        files.append(stream.getvalue())
    return files
