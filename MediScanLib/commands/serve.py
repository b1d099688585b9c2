"""`mediscan serve`: the REST server, its tokens and its audit log."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import UsageError
from ..notice import RESEARCH_USE_NOTICE

if TYPE_CHECKING:
    from ..server.settings import ServerSettings
    from ..server.storage.database import Database
    from ..web.settings import WebSettings

F = TypeVar("F", bound=Callable[..., Any])
EXIT_BROKEN = 3
_MEGABYTE = 1024**2


def _options(function: F) -> F:
    """Options of the server itself; what is not given keeps its default in `ServerSettings`."""
    for option in reversed(
        (
            click.option("--host", help="Address to listen on; other machines need a token. [127.0.0.1]"),
            click.option("--port", type=click.IntRange(0, 65535), help="TCP port. [8800]"),
            click.option("--model", "models", multiple=True, help="A model to offer; the first is the default."),
            click.option("--device", help="auto, cpu, cuda, cuda:N or mps. [auto]"),
            click.option("--config", type=click.Path(path_type=Path), help="YAML file; its section `inference`."),
            click.option("--workers", type=click.IntRange(1, 64), help="Processes, each with the models. [1]"),
            click.option("--max-batch-size", type=click.IntRange(1), help="Images that share one pass. [8]"),
            click.option("--max-queue", type=click.IntRange(1), help="Requests held at once, a worker. [64]"),
            click.option("--max-body-mb", type=click.IntRange(1), help="Largest request. [1024]"),
            click.option("--max-files", type=click.IntRange(1), help="Files in one request. [2000]"),
            click.option("--max-voxels", type=click.IntRange(1), help="Largest image. [268435456]"),
            click.option("--reading-mb", type=click.IntRange(64), help="Memory that decoding may take. [4096]"),
            click.option("--request-seconds", type=float, help="Longest wait for the answer to an image. [60]"),
            click.option("--rate", type=click.IntRange(0), help="Requests a minute and token; 0: no limit. [600]"),
            click.option("--keep-hours", type=float, help="How long results can be asked for. [24]"),
            click.option("--stop-seconds", type=float, help="How long a stop waits for what is under way. [20]"),
            click.option("--require-token", is_flag=True, help="Ask for a token on this machine too."),
            click.option("--open-metrics", is_flag=True, help="Show metrics without a token."),
            click.option("--allow-host", multiple=True, help="Further name that local requests may use."),
            click.option("--tls-cert", type=click.Path(path_type=Path), help="Certificate (PEM): serve https."),
            click.option("--tls-key", type=click.Path(path_type=Path), help="Its key (PEM)."),
            click.option("--proxy", "proxies", multiple=True, help="Address of a proxy to believe."),
            click.option("--web", is_flag=True, help="Also show a page for browsers."),
            click.option("--web-port", type=click.IntRange(1, 65535), help="TCP port of the page. [8801]"),
            click.option("--web-users", type=click.IntRange(1, 1000), help="Browsers at the page at once. [8]"),
            click.option("--web-idle", type=click.FloatRange(min=1), help="Minutes until a silent one is ended. [30]"),
        )
    ):
        function = option(function)
    return function


@click.group(invoke_without_command=True, epilog=RESEARCH_USE_NOTICE)
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    envvar="MEDISCAN_SERVER_FOLDER",
    help="Where database and uploads lie. [the user's own folder]",
)
@click.option("--database", envvar="MEDISCAN_DATABASE", help="SQLAlchemy URL such as postgresql://user@host/name.")
@_options
@click.pass_context
def serve(ctx: click.Context, folder: Path | None, database: str | None, **given: Any) -> None:
    """Predict for others over HTTP, until it is stopped.

    Without a token only programs of this machine are answered.
    """
    settings = _settings(folder, database, given)
    ctx.obj = settings
    if ctx.invoked_subcommand is None:
        _run(settings, _web_settings(settings, given) if given["web"] else None)


@serve.group()
def token() -> None:
    """Tokens, each with a role: reader, submitter or admin."""


@token.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(["reader", "submitter", "admin"]), default="submitter", show_default=True)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="How long it is good for. [for ever]")
@click.pass_obj
def add_token(settings: ServerSettings, name: str, role: Any, days: float | None) -> None:
    """Make a token for NAME and print it, once: only its digest is kept."""
    import time

    from ..server.storage.tokens import TokenStore

    with _opened(settings) as database:
        click.echo(TokenStore(database).add(name, role, None if days is None else time.time() + days * 86400))
    click.echo("It is not shown again.", err=True)


@token.command("list")
@click.pass_obj
def list_tokens(settings: ServerSettings) -> None:
    """Print a line for each token that was ever made."""
    from ..server.storage.tokens import TokenStore

    with _opened(settings) as database:
        for found in TokenStore(database).all():
            state = "in use" if found.active else "revoked" if found.revoked else "expired"
            until = "" if found.expires is None else f", until {_day(found.expires)}"
            click.echo(f"{found.name}  {found.role}  {state}  made {_day(found.created)}{until}")


@token.command("revoke")
@click.argument("name")
@click.pass_obj
def revoke_token(settings: ServerSettings, name: str) -> None:
    """Make the token of NAME useless, from the next request on."""
    from ..server.storage.tokens import TokenStore

    with _opened(settings) as database:
        TokenStore(database).revoke(name)
    click.echo(f"{name} is revoked.")


@serve.group()
def audit() -> None:
    """The audit log, whose entries are chained by their digests."""


@audit.command("verify")
@click.option("--expect", metavar="HEX", help="A last digest of an earlier time, which must still be in it.")
@click.pass_obj
def verify_audit(settings: ServerSettings, expect: str | None) -> None:
    """Check every entry, and print how many there are and the last digest; write that down elsewhere."""
    from ..server.storage.audit import AuditError, AuditLog

    with _opened(settings) as database:
        try:
            count, digest = AuditLog(database).verify(expect)
        except AuditError as error:
            click.echo(str(error), err=True)
            raise SystemExit(EXIT_BROKEN) from error
    click.echo(f"{count} entries, whole. Last digest: {digest}")


@audit.command("show")
@click.option("--last", type=click.IntRange(1, 100_000), default=20, show_default=True, help="How many.")
@click.pass_obj
def show_audit(settings: ServerSettings, last: int) -> None:
    """Print the newest entries as JSON lines."""
    import json

    from ..server.storage.audit import AuditLog

    with _opened(settings) as database:
        for entry in AuditLog(database).last(last):
            at = datetime.fromtimestamp(entry.at, timezone.utc).isoformat()
            facts = {"number": entry.number, "at": at, "event": entry.event, "actor": entry.actor}
            click.echo(json.dumps({**facts, **entry.details, "digest": entry.digest}))


def _settings(folder: Path | None, database: str | None, given: dict[str, Any]) -> ServerSettings:
    from pydantic import ValidationError

    from ..config import load_config
    from ..server.settings import ServerSettings

    inference = load_config(given["config"]).inference
    if given["max_batch_size"] is not None:
        inference = inference.model_copy(update={"max_batch_size": given["max_batch_size"]})
    scaled = {
        "max_body_bytes": _times(given["max_body_mb"], _MEGABYTE),
        "reading_memory_bytes": _times(given["reading_mb"], _MEGABYTE),
        "keep_s": _times(given["keep_hours"], 3600.0),
    }
    named = {
        "folder": folder,
        "database": database,
        "host": given["host"],
        "port": given["port"],
        "models": given["models"] or None,
        "device": given["device"],
        "workers": given["workers"],
        "max_queue": given["max_queue"],
        "max_files": given["max_files"],
        "max_voxels": given["max_voxels"],
        "request_time_s": given["request_seconds"],
        "requests_per_minute": given["rate"],
        "stop_s": given["stop_seconds"],
        "allowed_hosts": given["allow_host"],
        "tls_certificate": given["tls_cert"],
        "tls_key": given["tls_key"],
        "proxies": given["proxies"],
    }
    chosen = {key: value for key, value in {**named, **scaled}.items() if value is not None}
    try:
        return ServerSettings(
            inference=inference,
            require_token=given["require_token"],
            metrics_token=not given["open_metrics"],
            **chosen,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


def _web_settings(settings: ServerSettings, given: dict[str, Any]) -> WebSettings:
    from ..web.launching import check_packages
    from ..web.settings import WebSettings

    check_packages()
    if settings.port == 0:
        raise UsageError("--port 0: the page must know where the server listens. Give a port.")
    named = {
        "port": given["web_port"],
        "most_users": given["web_users"],
        "idle_s": _times(given["web_idle"], 60.0),
    }
    return WebSettings(server=settings, **{key: value for key, value in named.items() if value is not None})


def _run(settings: ServerSettings, web: WebSettings | None = None) -> None:
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise UsageError("--tls-cert and --tls-key belong together. Give both.")
    for path in (settings.tls_certificate, settings.tls_key):
        if path is not None and not path.is_file():
            raise UsageError(f"{path}: there is no such file. Give a PEM file.")
    from ..server.storage.tokens import TokenStore

    with _opened(settings) as database:
        tokens = TokenStore(database).any_active()
    if not tokens and (settings.require_token or not settings.is_local):
        raise UsageError(
            f"{settings.host}: other machines could reach the server, and there is no token. Make one first "
            "(mediscan serve token add NAME), or listen on 127.0.0.1."
        )
    if settings.workers > 1:
        _share_metrics(settings)
    import uvicorn

    from ..server.settings import ENVIRONMENT

    os.environ[ENVIRONMENT] = settings.model_dump_json()
    scheme = "https" if settings.tls_certificate else "http"
    if web is not None:
        from ..web.launching import start_gateway

        start_gateway(web)
        click.echo(f"The page for browsers is at {scheme}://{settings.host}:{web.port}/.", err=True)
    click.echo(
        f"MediScan listens on {scheme}://{settings.host}:{settings.port}/v1/docs. {RESEARCH_USE_NOTICE}", err=True
    )
    uvicorn.run(
        "MediScanLib.server.app:worker_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.proxies),
        forwarded_allow_ips=list(settings.proxies) or None,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.stop_s) + 1,
        log_config=_LOGGING,
    )


def _share_metrics(settings: ServerSettings) -> None:
    """A fresh folder in which the worker processes put their figures; before prometheus_client is loaded."""
    import shutil

    folder = settings.folder / "Metrics"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


class _opened:  # noqa: N801 - reads like a function
    """The database of a server, brought to this version."""

    def __init__(self, settings: ServerSettings) -> None:
        try:
            from ..server.storage.database import Database
        except ImportError as error:
            raise UsageError(
                f"The server needs more packages ({error.name} is not there). Install MediScan with [server]: "
                "pip install 'mediscan[server]'."
            ) from error
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = Database(settings.database_url)
        self._database.migrate()

    def __enter__(self) -> Database:
        return self._database

    def __exit__(self, *_: object) -> None:
        self._database.close()


def _times(value: float | None, factor: float) -> Any:
    return None if value is None else value * factor


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}"


_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(message)s"}, "named": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {
        "plain": {"class": "logging.StreamHandler", "formatter": "plain"},
        "named": {"class": "logging.StreamHandler", "formatter": "named"},
    },
    "loggers": {
        "mediscan.access": {"handlers": ["plain"], "level": "INFO", "propagate": False},
        "mediscan.server": {"handlers": ["named"], "level": "INFO", "propagate": False},
        "uvicorn": {"handlers": ["named"], "level": "INFO", "propagate": False},
    },
}
