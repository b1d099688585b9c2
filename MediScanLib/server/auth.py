"""Who asks, and what they may do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from ..errors import MediScanError
from .house import House
from .shield import remember
from .storage.tokens import ROLES, Role

LOCAL = "local"
"""Who asks where no token is needed."""

_FAILURE_COST = 10.0
_bearer = HTTPBearer(auto_error=False, description="A token of `mediscan serve token add`.")


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: Of the token, or "local".
        role: See `ROLES`.
    """

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether the caller has that role or a higher one."""
        return ROLES.index(self.role) >= ROLES.index(role)


def house_of(request: Request) -> House:
    """The services of this process."""
    house: House = request.app.state.house
    return house


def needs(role: Role) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """A dependency that lets callers with a role in, as often as they may."""

    async def dependency(
        request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Caller:
        house = house_of(request)
        address = request.client.host if request.client else "-"
        caller = await asyncio.to_thread(_identify, house, None if shown is None else shown.credentials)
        if caller is None:
            house.rate.check(f"address {address}", _FAILURE_COST)
            await asyncio.to_thread(house.audit.append, "access.refused", address, {"route": _route(request)})
            raise MediScanError("A valid token is needed: Authorization: Bearer <token>.", code="token")
        remember(request.scope, caller=caller.name)
        house.rate.check(f"address {address}" if caller.name == LOCAL else f"token {caller.name}")
        if not caller.may(role):
            raise MediScanError(f"This needs the role {role}; the token has the role {caller.role}.", code="role")
        return caller

    return dependency


Reader = Annotated[Caller, Depends(needs("reader"))]
Submitter = Annotated[Caller, Depends(needs("submitter"))]
Admin = Annotated[Caller, Depends(needs("admin"))]
HouseOf = Annotated[House, Depends(house_of)]


def _identify(house: House, shown: str | None) -> Caller | None:
    if shown is not None:
        token = house.tokens.find(shown)
        return None if token is None else Caller(token.name, token.role)
    # once there is a token, it is needed here too
    return None if house.needs_token or house.tokens.any_active() else Caller(LOCAL, "admin")


def _route(request: Request) -> str:
    return str(getattr(request.scope.get("route"), "path", "none"))
