"""Where results go: archives that take C-STORE or STOW-RS."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from ..config import Integer, Number
from .backoff import MOST_WAIT_S


class PlacedError(ValueError):
    """A mistake in a key inside of the part that is checked.

    Args:
        message: What is wrong.
        place: Of the key, below the part.
    """

    def __init__(self, message: str, *place: int | str) -> None:
        super().__init__(message)
        self.place = place


def _ae_title(text: str) -> str:
    if not text.strip() or not text.isascii() or not text.isprintable() or "\\" in text:
        raise ValueError("an AE title has 1 to 16 printable ASCII characters and no backslash")
    return text.strip()  # blanks around it mean nothing (PS3.5, 6.2)


def checked_path(value: Any) -> Any:
    """A text as a path, with the home of a user written out."""
    if not isinstance(value, str):
        return value
    if not value.strip() or "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("is no path. Give one, or take the key out")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError("names the home of a user who is not known. Write the path out") from None


AeTitle = Annotated[str, Field(max_length=16), AfterValidator(_ae_title)]
FilePath = Annotated[Path, BeforeValidator(checked_path)]
Seconds = Annotated[Number, Field(ge=0, le=MOST_WAIT_S)]  # endless waits overflow the system's timers


class Part(BaseModel):
    """A part of the settings: nothing in it is unknown, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def is_local(host: str) -> bool:
    """Whether a name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Tls(Part):
    """Encryption of a DICOM association.

    Attributes:
        ca_file: PEM with the authorities that the other side is checked against; the system's where None.
        certificate: PEM that this side shows.
        key: Its key.
    """

    ca_file: FilePath | None = None
    certificate: FilePath | None = None
    key: FilePath | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        return self


class WebAccess(Part):
    """A DICOMweb service and how to get in.

    Attributes:
        url: Its base, such as https://pacs.example/dicom-web.
        user: For a password.
        password_file: Its first line is the password.
        token_file: Its first line is a bearer token.
        ca_file: PEM with the authorities to trust instead of the system's.
        allow_http: Whether images may travel unencrypted to another machine.
        timeout_s: Longest silence.
    """

    url: str
    user: str | None = None
    password_file: FilePath | None = None
    token_file: FilePath | None = None
    ca_file: FilePath | None = None
    allow_http: StrictBool = False
    timeout_s: Seconds = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _consistent(self) -> WebAccess:
        try:
            parts = urlsplit(self.url)
            host = parts.hostname
            _ = parts.port
        except ValueError:
            host = None
        plain = self.url.isascii() and self.url.isprintable() and not set(self.url) & set(" ?#\\")
        if not host or not plain or parts.scheme not in ("http", "https"):
            raise PlacedError("url: must look like https://pacs.example/dicom-web", "url")
        if parts.username is not None or parts.password is not None:
            raise PlacedError("url: the password belongs into a password_file", "url")
        if parts.scheme == "http" and not is_local(host) and not self.allow_http:
            raise PlacedError("url: use https, or set allow_http: true to let images travel unencrypted", "url")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file belong together")
        if self.user is not None and self.token_file is not None:
            raise ValueError("give either a password or a token")
        return self


class StoreDestination(Part):
    """An archive that takes C-STORE.

    Attributes:
        kind: "c-store".
        host: Name or address.
        port: TCP port.
        ae_title: What it calls itself.
        tls: Encryption; none where None.
        timeout_s: Longest silence.
    """

    kind: Literal["c-store"]
    host: str = Field(min_length=1)
    port: Integer = Field(ge=1, le=65535)
    ae_title: AeTitle
    tls: Tls | None = None
    timeout_s: Seconds = Field(default=60.0, gt=0)


class StowDestination(WebAccess):
    """An archive that takes STOW-RS.

    Attributes:
        kind: "stow-rs".
    """

    kind: Literal["stow-rs"]


Destination = Annotated[StoreDestination | StowDestination, Field(discriminator="kind")]
