"""Where a server is, and how it is trusted: checked before anything is sent."""

from __future__ import annotations

import os
import ssl
from urllib.parse import urlsplit

from ..errors import ServerError

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
"""Images may travel to these unencrypted."""


def address_parts(url: str, allow_http: bool) -> tuple[bool, str, int, str]:
    """(encrypted, host, port, path) of a server's address.

    Raises:
        ServerError: It is no address, or not one to send images to.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ServerError(
            f"{url[:200]!r} is no address of a server. Give one such as https://host:8800.", code="server_unreachable"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ServerError(
            "The address of a server has no user, password or query. Give the token by itself.",
            code="server_unreachable",
        )
    secure = parts.scheme == "https"
    if not secure and not allow_http and parts.hostname not in LOCAL_HOSTS:
        raise ServerError(
            f"{url}: images of patients would travel unencrypted to another machine. Use https://, or allow http.",
            code="server_tls",
        )
    return secure, parts.hostname, port or (443 if secure else 80), parts.path.rstrip("/")


def checked_token(token: str | None) -> str | None:
    """A token that can stand in a header; None for an empty one.

    Raises:
        ServerError: It cannot.
    """
    token = (token or "").strip()
    if not token.isascii() or any(not character.isprintable() or character == " " for character in token):
        raise ServerError("The token holds characters that no token has. Copy it again.", code="server_token")
    return token or None


def tls_context(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext:
    """Whom to trust.

    Raises:
        ServerError: The file holds no certificates.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ServerError(
            f"{ca_file}: holds no certificates that can be read ({error.strerror or type(error).__name__}). Give a "
            "PEM file.",
            code="server_tls",
        ) from error
