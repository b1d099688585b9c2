"""How a server is set up; made by `mediscan serve`, and handed to its worker processes as JSON."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ..config import InferenceConfig
from ..network.bundle import DEFAULT_BUNDLE, user_folder

ENVIRONMENT = "MEDISCAN_SERVER_SETTINGS"
"""Variable in which worker processes find their settings."""

MEBIBYTE = 1024**2


class ServerSettings(BaseModel):
    """Everything that can be set.

    Attributes:
        host: Address to listen on; anything but this machine's own needs a token.
        port: TCP port.
        folder: Where the database and uploads lie; for this user only.
        database: SQLAlchemy URL; a SQLite file in `folder` where None.
        models: Names of the bundles that are offered; the first is the default.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        inference: As in config.yaml; `max_batch_size` is also the size of a micro-batch.
        workers: Processes, each with the models in its own memory.
        readers: Child processes that decode uploads, for each worker.
        job_threads: Volumes and batches at once, for each worker; 0 for a server that only takes jobs in.
        batch_wait_s: How long an image waits for others to share its pass through the network.
        max_queue: Requests for predictions that one worker holds at once.
        max_held_bytes: Bytes of such requests at once.
        max_jobs: Jobs that wait at once.
        max_body_bytes: Largest request.
        max_files: Files in one request.
        max_voxels: Largest image.
        reading_memory_bytes: What decoding one upload may take.
        reading_time_s: How long decoding one upload may take.
        upload_time_s: How long a request may take to arrive.
        request_time_s: How long an image may take from arrival to answer.
        volume_time_s: The same for a volume whose client waits.
        requests_per_minute: For each token, or each address where there are none; 0 for no limit.
        keep_s: How long results can be asked for.
        stop_s: How long a stop waits for what is under way.
        lease_s: A job whose worker is silent for so long is given to another one.
        attempts: How often a job is begun before it is given up.
        require_token: Whether a token is needed also on this machine.
        allowed_hosts: Further names of this server that requests without a token may use.
        metrics_token: Whether metrics need a token too, where tokens are needed.
        tls_certificate: PEM file.
        tls_key: PEM file.
        proxies: Addresses of proxies whose X-Forwarded-For and -Proto are believed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int = Field(default=8800, ge=0, le=65535)
    folder: Path = Field(default_factory=lambda: user_folder() / "Server")
    database: str | None = None
    models: tuple[str, ...] = Field(default=(DEFAULT_BUNDLE,), min_length=1)
    device: str = "auto"
    inference: InferenceConfig = InferenceConfig()
    workers: int = Field(default=1, ge=1, le=64)
    readers: int = Field(default=2, ge=1, le=64)
    job_threads: int = Field(default=1, ge=0, le=16)
    batch_wait_s: float = Field(default=0.004, ge=0, le=1)
    max_queue: int = Field(default=64, ge=1)
    max_held_bytes: int = Field(default=4096 * MEBIBYTE, ge=MEBIBYTE)
    max_jobs: int = Field(default=1000, ge=1)
    max_body_bytes: int = Field(default=1024 * MEBIBYTE, ge=1024)
    max_files: int = Field(default=2000, ge=1)
    max_voxels: int = Field(default=256 * MEBIBYTE, ge=1)
    reading_memory_bytes: int = Field(default=4096 * MEBIBYTE, ge=64 * MEBIBYTE)
    reading_time_s: float = Field(default=60.0, gt=0)
    upload_time_s: float = Field(default=300.0, gt=0)
    request_time_s: float = Field(default=60.0, gt=0)
    volume_time_s: float = Field(default=1800.0, gt=0)
    requests_per_minute: int = Field(default=600, ge=0)
    keep_s: float = Field(default=24 * 3600.0, ge=0)
    stop_s: float = Field(default=20.0, ge=0)
    lease_s: float = Field(default=15.0, gt=0)
    attempts: int = Field(default=3, ge=1)
    require_token: bool = False
    allowed_hosts: tuple[str, ...] = ()
    metrics_token: bool = True
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    proxies: tuple[str, ...] = ()

    @property
    def database_url(self) -> str:
        """Where results, jobs, tokens and the audit log are kept."""
        return self.database or f"sqlite:///{(self.folder / 'server.sqlite').resolve().as_posix()}"

    @property
    def reviews_file(self) -> Path:
        """Where reviews are kept."""
        return self.folder / "reviews.sqlite"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
