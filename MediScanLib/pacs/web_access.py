"""A DICOMweb client for an archive: who it is, how long it waits, and what its errors mean."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING

from .destinations import WebAccess
from .problems import PacsError, PeerError

if TYPE_CHECKING:
    import requests
    from dicomweb_client.api import DICOMwebClient

_MOST_SECRET = 16 * 1024


def make_session(access: WebAccess) -> requests.Session:
    """A session that knows who it is and whom to trust; nothing is taken from the environment.

    Raises:
        PacsError: A file with a secret, or with authorities, cannot be used.
    """
    import requests

    session = requests.Session()
    session.trust_env = False  # neither proxies nor a .netrc: images go where the settings say
    session.max_redirects = 0  # a redirect could lead a token elsewhere
    if access.ca_file is not None:
        if not access.ca_file.is_file():
            raise PacsError(f"{access.ca_file}: is no file. Give the PEM file with the authorities to trust.")
        session.verify = str(access.ca_file)
    if access.user is not None and access.password_file is not None:
        session.auth = (access.user.encode(), _secret(access.password_file).encode())  # type: ignore[assignment]
    if access.token_file is not None:
        session.headers["Authorization"] = f"Bearer {_secret(access.token_file)}"
    return session


def make_client(access: WebAccess, session: requests.Session) -> DICOMwebClient:
    """A client that asks once: what failed is tried again by the queue, later."""
    from dicomweb_client.api import DICOMwebClient

    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)  # it logs UIDs
    client = DICOMwebClient(access.url, session=session, timeout=access.timeout_s)
    client.set_http_retry_params(retry=False)
    return client


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Errors of a request as `PeerError`, without its URL: that holds UIDs.

    Args:
        name: Of the archive.
    """
    import requests

    try:
        yield
    except requests.HTTPError as error:
        raise http_error(name, 0 if error.response is None else error.response.status_code) from None
    except requests.exceptions.SSLError:
        raise PeerError(
            f"{name}: its certificate is not trusted. Give ca_file, or correct the clock of this machine.",
            unreachable=True,
        ) from None
    except (requests.ConnectionError, requests.exceptions.ConnectTimeout):
        raise PeerError(
            f"{name}: cannot be reached, or ended the connection.", unreachable=True, uncertain=True
        ) from None
    except requests.Timeout:
        raise PeerError(f"{name}: did not answer in time.", unreachable=True, uncertain=True) from None
    except requests.TooManyRedirects:
        raise PeerError(f"{name}: sends elsewhere. Give the URL that it points to.", code="refused") from None
    except (requests.RequestException, JSONDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PeerError(
            f"{name}: its answer is not understood ({type(error).__name__}). Is the URL that of its DICOMweb service?",
            code="answer",
            uncertain=True,
        ) from None


def http_error(name: str, status: int) -> PeerError:
    """What a status means."""
    if status in (401, 403):
        return PeerError(
            f"{name}: does not let MediScan in ({status}). Check user, password or token.", unreachable=True
        )
    if status == 404:
        return PeerError(f"{name}: has nothing there ({status}). Check its URL.", code="refused")
    if status in (413, 507):
        return PeerError(f"{name}: has no room, or takes nothing so large ({status}).", code="peer_full")
    if status in (429, 502, 503, 504):
        return PeerError(f"{name}: is busy or starting ({status}).", unreachable=True, uncertain=status in (502, 504))
    return PeerError(
        f"{name}: answered with an error ({status}). Its log says why.", code="refused", uncertain=status >= 500
    )


def _secret(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as stream:
            text = stream.readline(_MOST_SECRET).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PacsError(
            f"{path}: cannot be read ({type(error).__name__}). It should hold a password or token."
        ) from error
    if not text or not text.isprintable():
        raise PacsError(f"{path}: its first line should be a password or token.")
    return text
