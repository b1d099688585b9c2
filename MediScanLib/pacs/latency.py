"""Associations that do not wait for nothing.

A DICOM message is written in several pieces. TCP holds back the second one until the first is acknowledged (Nagle's
algorithm, RFC 896), and the other side puts off acknowledging by about 40 ms (RFC 1122, 4.2.3.2): together 80 ms an
object, many times what sending it takes. Both are switched off here, as far as the system lets this side do it.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

from pynetdicom import evt


def prompt_handlers() -> list[Any]:
    """Event handlers for an association or a server of pynetdicom."""
    return [
        (evt.EVT_CONN_OPEN, _send_at_once),
        (evt.EVT_DATA_SENT, _acknowledge_at_once),
        (evt.EVT_DATA_RECV, _acknowledge_at_once),
    ]


def _send_at_once(event: Any) -> None:
    _set(event, "TCP_NODELAY")
    _set(event, "TCP_QUICKACK")


def _acknowledge_at_once(event: Any) -> None:
    _set(event, "TCP_QUICKACK")  # Linux only, which forgets it after a while


def _set(event: Any, option: str) -> None:
    number = getattr(socket, option, None)
    connection = getattr(event.assoc.dul.socket, "socket", None)
    if number is not None and connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, number, 1)
