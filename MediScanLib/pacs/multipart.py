"""The one part of a multipart/related answer, as it comes in (RFC 2046, 5.1; PS3.18, 8.6.1.2.1)."""

from __future__ import annotations

from collections.abc import Iterable
from email.message import Message
from typing import BinaryIO

from .problems import PacsError

_MOST_HEAD = 64 * 1024


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a Content-Type names; None where the answer has no parts."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    return (
        boundary.encode("latin-1", "replace") if message.get_content_maintype() == "multipart" and boundary else None
    )


def write_part(chunks: Iterable[bytes], boundary: bytes, stream: BinaryIO, most_bytes: float) -> None:
    """Write the content of the first part, without ever holding it whole.

    Args:
        chunks: The body.
        boundary: Between parts.
        stream: Where to.
        most_bytes: Largest content.

    Raises:
        PacsError: The body ends too early, is no multipart body, or is too large.
    """
    end = b"\r\n--" + boundary
    held = b"\r\n"  # the first delimiter may stand at the very beginning
    inside, written = False, 0
    for chunk in chunks:
        held += chunk
        if not inside:
            start = held.find(end)
            head_end = held.find(b"\r\n\r\n", start + len(end)) if start >= 0 else -1
            if head_end < 0:
                if len(held) > _MOST_HEAD:
                    raise _broken()
                continue
            held, inside = held[head_end + 4 :], True
        at = held.find(end)
        ready = held[:at] if at >= 0 else held[: max(0, len(held) - len(end))]
        written += len(ready)
        if written > most_bytes:
            raise PacsError("an object is larger than limits.instance_mb.", code="too_large")
        stream.write(ready)
        if at >= 0:
            return
        held = held[len(ready) :]
    raise _broken()


def _broken() -> PacsError:
    return PacsError("an object came cut off.", code="cut_off")
