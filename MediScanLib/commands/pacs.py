"""`mediscan listen`, `mediscan poll` and `mediscan queue`: a node between the archives of a hospital."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..notice import RESEARCH_USE_NOTICE

if TYPE_CHECKING:
    from ..pacs.polling import Poller
    from ..pacs.queue import Queue
    from ..pacs.settings import PacsSettings

F = TypeVar("F", bound=Callable[..., Any])


def _config_option(function: F) -> F:
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        required=True,
        envvar="MEDISCAN_PACS_CONFIG",
        help="YAML file with destinations and rules, see docs/pacs.md.",
    )(function)


def _stop_option(function: F) -> F:
    return click.option(
        "--stop-seconds",
        type=click.FloatRange(min=0),
        default=20.0,
        show_default=True,
        help="How long a stop waits for what is under way.",
    )(function)


@click.command(epilog=RESEARCH_USE_NOTICE)
@_config_option
@click.option("--port", type=click.IntRange(0, 65535), help="Instead of listen.port.")
@click.option("--poll", is_flag=True, help="Also ask the DICOMweb sources.")
@_stop_option
def listen(config: Path, port: int | None, poll: bool, stop_seconds: float) -> None:
    """Be a DICOM node: take studies by C-STORE, predict them and send the results, until it is stopped."""
    _run(config, listening=True, polling=poll, port=port, stop_seconds=stop_seconds)


@click.command(epilog=RESEARCH_USE_NOTICE)
@_config_option
@click.option("--once", is_flag=True, help="Ask once, send all results, and end.")
@_stop_option
def poll(config: Path, once: bool, stop_seconds: float) -> None:
    """Ask DICOMweb archives for new studies, predict them and send the results, until it is stopped."""
    _run(config, listening=False, polling=True, once=once, stop_seconds=stop_seconds)


@click.group(epilog=RESEARCH_USE_NOTICE)
@_config_option
@click.pass_context
def queue(ctx: click.Context, config: Path) -> None:
    """Look at the queue of a node, while it runs or not, and try dead letters again."""
    from ..pacs.settings_file import load_settings

    ctx.obj = load_settings(config)


@queue.command("check")
@click.pass_obj
def check_queue(settings: PacsSettings) -> None:
    """Check the settings and print, in order, what the rules do."""
    for rule in settings.rules:
        conditions = ", ".join(
            f"{key} {' or '.join(value)}" for key, value in rule.when.model_dump(exclude_none=True).items()
        )
        does = (
            "left alone"
            if rule.leave_alone
            else f"{rule.model}; {', '.join(rule.results)} to {', '.join(rule.send_to)}"
        )
        click.echo(f"{rule.name}: {conditions or 'everything'} -> {does}")


@queue.command("status")
@click.pass_obj
def show_queue(settings: PacsSettings) -> None:
    """Print how much is where."""
    with _opened(settings) as found:
        counts = found.counts()
    click.echo(f"studies still coming: {counts.waiting_studies}")
    click.echo("predictions: " + (_listed(counts.items) or "none"))
    for destination, states in counts.deliveries.items():
        click.echo(f"to {destination}: {_listed(states)}")


@queue.command("dead")
@click.pass_obj
def list_dead(settings: PacsSettings) -> None:
    """Print what was given up, and why."""
    with _opened(settings) as found:
        letters = found.dead_letters()
    for letter in letters:
        when = datetime.fromtimestamp(letter.ended, timezone.utc)
        where = "not predicted" if letter.destination is None else f"not sent to {letter.destination}"
        gone = "" if letter.can_retry else " [files deleted]"
        click.echo(
            f"{letter.item}  {when:%Y-%m-%d %H:%M} UTC  study {letter.study}  rule {letter.rule}  {where} after "
            f"{letter.attempts} attempts{gone}: {letter.message}"
        )


@queue.command("retry")
@click.argument("ids", nargs=-1, metavar="[ITEM]...")
@click.pass_obj
def retry_dead(settings: PacsSettings, ids: tuple[str, ...]) -> None:
    """Try dead letters again: those named, or all."""
    with _opened(settings) as found:
        click.echo(f"{found.retry(ids)} are tried again.")


@queue.command("drop")
@click.argument("ids", nargs=-1, required=True, metavar="ITEM...")
@click.pass_obj
def drop_dead(settings: PacsSettings, ids: tuple[str, ...]) -> None:
    """Take dead letters off the list for good."""
    with _opened(settings) as found:
        click.echo(f"{found.drop(ids)} are dropped.")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {state}" for state, count in counts.items())


@contextmanager
def _opened(settings: PacsSettings) -> Iterator[Queue]:
    from ..pacs.queue import Queue

    found = Queue(settings.folder)
    try:
        yield found
    finally:
        found.close()


def _run(
    config: Path,
    *,
    listening: bool,
    polling: bool,
    stop_seconds: float,
    port: int | None = None,
    once: bool = False,
) -> None:
    from ..errors import UsageError
    from ..pacs.node import Node
    from ..pacs.settings_file import load_settings

    settings = load_settings(config)
    if port is not None:
        settings = settings.model_copy(update={"listen": settings.listen.model_copy(update={"port": port})})
    if polling and not settings.sources:
        raise UsageError(f"{config}: has no sources to poll. Add a section sources, see docs/pacs.md.")
    _show_log()
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as stack:
        node = Node(settings)
        stack.callback(node.stop, stop_seconds)
        pollers = _pollers(settings, node) if polling else []
        if listening:
            from ..pacs.listening import Listener

            listener = Listener(
                settings.listen, node.intake, node.connections, node.wake, settings.limits.instance_mb * 1024**2
            )
            stack.callback(listener.close)
            host, bound = listener.address
            click.echo(f"{settings.listen.ae_title} listens on {host}:{bound}. {RESEARCH_USE_NOTICE}", err=True)
        if polling:
            click.echo(f"Asking {', '.join(settings.sources)}. {RESEARCH_USE_NOTICE}", err=True)
        node.start()
        for poller in pollers:
            if once:
                poller.look()
            else:
                poller.start()
                stack.callback(poller.close)
        while not stopped.wait(0.2):
            if once and node.queue.counts().is_idle:
                break


def _pollers(settings: PacsSettings, node: Any) -> list[Poller]:
    from ..pacs.polling import Poller

    return [
        Poller(name, source, node.intake, node.connections, settings.retry, node.wake)
        for name, source in settings.sources.items()
    ]


def _show_log() -> None:
    log = logging.getLogger("mediscan.pacs")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(handler)
        log.propagate = False
    if log.getEffectiveLevel() > logging.INFO:
        log.setLevel(logging.INFO)
