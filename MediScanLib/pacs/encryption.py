"""Encryption of DICOM associations (PS3.15, annex B)."""

from __future__ import annotations

import ssl

from .destinations import Tls
from .problems import PacsError


def server_context(tls: Tls) -> ssl.SSLContext:
    """Encryption for those who call; they show a certificate too where `ca_file` is given.

    Raises:
        PacsError: A file cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    return _with_files(context, tls, ask=True)


def client_context(tls: Tls) -> ssl.SSLContext:
    """Encryption for calls to others.

    Raises:
        PacsError: A file cannot be used.
    """
    return _with_files(ssl.create_default_context(), tls, ask=False)


def _no_password() -> bytes:
    raise ssl.SSLError("the key is encrypted")  # else OpenSSL would ask for its password on the terminal, and wait


def _with_files(context: ssl.SSLContext, tls: Tls, *, ask: bool) -> ssl.SSLContext:
    try:
        if tls.certificate is not None and tls.key is not None:
            context.load_cert_chain(tls.certificate, tls.key, _no_password)
        if tls.ca_file is not None:
            context.load_verify_locations(tls.ca_file)
            if ask:
                context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise PacsError(f"tls: a certificate, key or ca_file cannot be used ({error.strerror or error}).") from error
    return context
