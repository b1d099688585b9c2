"""Who is at the page: a cookie for each browser, and the token behind it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field

from ..errors import MediScanError
from ..server.limits import RateLimit
from ..server.storage.audit import AuditLog
from ..server.storage.database import Database
from ..server.storage.tokens import ROLES, TokenStore
from .settings import WebSettings

COOKIE = "mediscan_web"
LOCAL = "local"
"""Who is at the page where no token is needed: as `server.auth` says it, which would load the models' libraries."""

NEEDED_ROLE = "submitter"


@dataclass(eq=False)
class Visitor:
    """One browser.

    Attributes:
        name: Of the token, or "local".
        token: What it signed in with; None where no token is needed.
        cookie: What it shows with each request.
        seen: When it was last heard of, monotonic seconds.
        connections: Pages that are open.
    """

    name: str
    token: str | None
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    seen: float = field(default_factory=time.monotonic)
    connections: int = 0


class Visitors:
    """Lets browsers in. Its methods ask the database and belong in a thread.

    Args:
        settings: How the page is set up.
        database: Of the REST server.
    """

    def __init__(self, settings: WebSettings, database: Database) -> None:
        self._tokens, self._audit = TokenStore(database), AuditLog(database)
        self._failures = RateLimit(settings.failures_per_minute)
        server = settings.server
        self._always = server.require_token or not server.is_local or self._tokens.any_active()
        self._known: dict[str, Visitor] = {}

    def needs_token(self) -> bool:
        """Whether one must sign in; once there is a token, it is needed on this machine too."""
        return self._always or self._tokens.any_active()

    def find(self, cookie: str | None) -> Visitor | None:
        """Whose cookie that is; None for nobody's."""
        return None if cookie is None else self._known.get(cookie)

    def stranger(self) -> Visitor:
        """A visitor who needs no token."""
        return self._remember(Visitor(LOCAL, None))

    def sign_in(self, token: str, address: str) -> Visitor:
        """Let somebody in who shows a token.

        Raises:
            MediScanError: It is not good for this page, or too many were tried.
        """
        found = self._tokens.find(token)
        if found is None:
            self._failures.check(address)
            self._audit.append("access.refused", address, {"route": "web page"})
            raise MediScanError(
                "This token is not known here, or it was revoked or has expired. Ask whoever runs the server for "
                "another one.",
                code="token",
            )
        if ROLES.index(found.role) < ROLES.index(NEEDED_ROLE):
            raise MediScanError(
                f"This token has the role {found.role}, which may only look at results. The page needs the role "
                f"{NEEDED_ROLE}.",
                code="role",
            )
        self._audit.append("web.signed_in", found.name, {})
        return self._remember(Visitor(found.name, token))

    def may_stay(self, visitor: Visitor) -> bool:
        """Whether a visitor would still be let in: tokens are revoked and expire, and first ones are made."""
        if visitor.token is None:
            return not self.needs_token()
        found = self._tokens.find(visitor.token)
        return found is not None and ROLES.index(found.role) >= ROLES.index(NEEDED_ROLE)

    def forget(self, visitor: Visitor) -> None:
        """A visitor has left."""
        self._known.pop(visitor.cookie, None)

    def all(self) -> list[Visitor]:
        """Everybody who is here."""
        return list(self._known.values())

    def tell(self, event: str, visitor: Visitor, details: dict[str, object]) -> None:
        """Write into the audit log what a visitor did."""
        self._audit.append(event, visitor.name, details)

    def _remember(self, visitor: Visitor) -> Visitor:
        self._known[visitor.cookie] = visitor
        return visitor
