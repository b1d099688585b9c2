"""Tokens with roles. Only their digests are kept; the token itself is shown once."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import insert, or_, select, update

from ...errors import UsageError
from .audit import AuditLog
from .database import Database
from .tables import tokens

Role = Literal["reader", "submitter", "admin"]
ROLES: tuple[Role, ...] = ("reader", "submitter", "admin")
"""Each may do what those before it may. reader: look at models and results. submitter: ask for predictions, review.
admin: everything, also with what others submitted."""

_PREFIX = "msc"


@dataclass(frozen=True)
class Token:
    """A token without its secret.

    Attributes:
        id: Its public part.
        name: Who it is for; stands in the audit log.
        role: See `ROLES`.
        created: Seconds since 1970.
        expires: The same; None for never.
        revoked: The same; None where it is valid.
    """

    id: str
    name: str
    role: Role
    created: float
    expires: float | None
    revoked: float | None

    @property
    def active(self) -> bool:
        """Whether it opens the door."""
        return self.revoked is None and (self.expires is None or self.expires > time.time())


class TokenStore:
    """The tokens of a server.

    Args:
        database: Where they lie.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._audit = AuditLog(database)

    def add(self, name: str, role: Role, expires: float | None = None) -> str:
        """Make a token.

        Args:
            name: Who it is for; no two are called the same.
            role: See `ROLES`.
            expires: When it ends.

        Returns:
            The token: 256 random bits, so that a plain digest of it cannot be searched.

        Raises:
            UsageError: The name is taken or not acceptable.
        """
        name = name.strip()
        if not name or len(name) > 100 or not name.isprintable():
            raise UsageError("A token needs a name of 1 to 100 printable characters.")
        identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        with self._database.writing() as connection:
            if connection.execute(select(tokens.c.id).where(tokens.c.name == name)).first():
                raise UsageError(f"There is, or was, a token called {name!r}. Choose another name.")
            connection.execute(
                insert(tokens).values(
                    id=identity,
                    name=name,
                    role=role,
                    digest=_digest(secret),
                    created=time.time(),
                    expires=expires,
                )
            )
            self._audit.append_in(connection, "token.added", "server", {"token": name, "role": role})
        return f"{_PREFIX}_{identity}_{secret}"

    def revoke(self, name: str) -> None:
        """Make a token useless from now on.

        Raises:
            UsageError: There is no such token in use.
        """
        with self._database.writing() as connection:
            done = connection.execute(
                update(tokens)
                .where(or_(tokens.c.name == name, tokens.c.id == name), tokens.c.revoked.is_(None))
                .values(revoked=time.time())
            )
            if not done.rowcount:
                raise UsageError(f"There is no token called {name!r} in use. See mediscan serve token list.")
            self._audit.append_in(connection, "token.revoked", "server", {"token": name})

    def all(self) -> list[Token]:
        """Every token that was ever made, the oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(select(tokens).order_by(tokens.c.created)).all()
        return [Token(row.id, row.name, row.role, row.created, row.expires, row.revoked) for row in rows]

    def any_active(self) -> bool:
        """Whether there is a token in use."""
        return any(token.active for token in self.all())

    def find(self, text: str) -> Token | None:
        """The token that was shown; None where it opens nothing."""
        prefix, _, rest = text.partition("_")
        identity, _, secret = rest.partition("_")
        if prefix != _PREFIX or not secret or len(text) > 200 or not text.isascii():
            return None
        with self._database.reading() as connection:
            row = connection.execute(select(tokens).where(tokens.c.id == identity)).first()
        if row is None or not hmac.compare_digest(row.digest, _digest(secret)):
            return None
        token = Token(row.id, row.name, row.role, row.created, row.expires, row.revoked)
        return token if token.active else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()
