"""How the web page is set up; made by `mediscan serve --web`, and handed to its process as JSON."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ..server.settings import ServerSettings

ENVIRONMENT = "MEDISCAN_WEB_SETTINGS"
"""Variable in which the gateway finds its settings."""


class WebSettings(BaseModel):
    """Everything that can be set.

    Attributes:
        server: The REST server beside which the page is served: address, limits, certificate and tokens are its own.
        port: TCP port of the page.
        most_users: Browsers at once; each has a process of its own.
        spare: Processes that wait for the next browser, so that its page comes at once.
        idle_s: A browser from which nothing was heard for so long loses its study.
        start_s: How long a process may take until it can show a page.
        failures_per_minute: Wrong tokens that one address may try.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: ServerSettings = ServerSettings()
    port: int = Field(default=8801, ge=0, le=65535)
    most_users: int = Field(default=8, ge=1, le=1000)
    spare: int = Field(default=1, ge=0, le=16)
    idle_s: float = Field(default=1800.0, gt=0)
    start_s: float = Field(default=120.0, gt=0)
    failures_per_minute: int = Field(default=10, ge=1)

    @property
    def server_url(self) -> str:
        """Where the REST server is reached from this machine."""
        host = self.server.host
        if host in ("0.0.0.0", "::", ""):  # noqa: S104 - what it listens on, not what we listen on
            host = "127.0.0.1"
        scheme = "https" if self.server.tls_certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.server.port}"


class UserSettings(BaseModel):
    """What the process of one browser is told when it is given to somebody; it comes through a pipe.

    Attributes:
        key: Shown by the gateway with every request; others on this machine are not answered.
        name: Of the token, or "local".
        token: For the REST server; None where it wants none.
        signed_in: Whether there is something to sign out of.
        server_url: The REST server.
        certificate: Its certificate, which is believed whatever name it is for: it is on this machine.
        folder: Where uploads of this browser lie until they are decoded.
        reviews_file: Where reviews are kept.
        max_body_bytes: See `ServerSettings`.
        max_files: See `ServerSettings`.
        max_voxels: See `ServerSettings`.
        reading_memory_bytes: See `ServerSettings`.
        reading_time_s: See `ServerSettings`.
        upload_time_s: See `ServerSettings`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    name: str
    token: str | None
    signed_in: bool
    server_url: str
    certificate: Path | None
    folder: Path
    reviews_file: Path
    max_body_bytes: int
    max_files: int
    max_voxels: int
    reading_memory_bytes: int
    reading_time_s: float
    upload_time_s: float
