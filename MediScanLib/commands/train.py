"""`mediscan train`: from a manifest to a bundle."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import DeviceError
from ..notice import RESEARCH_USE_NOTICE

if TYPE_CHECKING:
    from ..config import Config
    from ..training.recipe import TrainingRun

EXIT_INTERRUPTED = 130


@click.command(epilog=RESEARCH_USE_NOTICE)
@click.option("--data", required=True, type=click.Path(path_type=Path), help="Manifest of studies (CSV).")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Folder for checkpoints, history and bundle."
)
@click.option("--config", type=click.Path(path_type=Path), help="YAML file; its sections model and training count.")
@click.option("--epochs", type=int, help="Passes over the training split; a longer warm-up is cut to it.")
@click.option("--batch-size", type=int, help="Studies per optimizer step, over all processes.")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option("--resume", type=click.Path(path_type=Path), help="Checkpoint (last.pt) to go on from.")
@click.option("--gpus", type=click.IntRange(min=1), help="GPUs of this machine to train on together.")
@click.option("--distributed", is_flag=True, help="This process was started by torchrun, one of several.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of prepared images. [OUTPUT/cache]")
@click.option("--boxes", type=click.Path(path_type=Path), help="Readers' boxes (CSV) to teach the heat maps with.")
@click.option("--lesions", type=click.Path(path_type=Path), help="Readers' masks (CSV) to teach the heat maps with.")
@click.option("--name", default="mediscan-trained", show_default=True, help="Name of the bundle.")
@click.pass_context
def train(
    ctx: click.Context,
    data: Path,
    output: Path,
    config: Path | None,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    resume: Path | None,
    gpus: int | None,
    distributed: bool,
    device: str,
    cache: Path | None,
    boxes: Path | None,
    lesions: Path | None,
    name: str,
) -> None:
    """Train a network on the studies of a manifest.

    Everything is checked before the first epoch. The run may be stopped at any moment and goes on with --resume, to
    the same weights where the device computes the same way twice, as CPUs do.

    Boxes and masks on training images count where training.location_weight is set.
    """
    settings = _settings(config, epochs, batch_size, lr)
    if gpus is not None and gpus > 1 and not distributed:
        ctx.exit(_launch(gpus, ctx.params))
    from ..prediction.devices import resolve_device
    from ..training.processes import joined
    from ..training.recipe import TrainingRun
    from ..training.regions import MarkFiles

    run = TrainingRun(data, output, settings, name, cache or output / "cache", resume, marks=MarkFiles(boxes, lesions))
    try:
        if distributed:
            with joined(device) as (processes, chosen):
                _train(run, chosen, processes)
        else:
            _train(run, resolve_device(device))
    except KeyboardInterrupt:
        click.echo(f"Stopped. Go on with --resume {output / 'last.pt'}", err=True)
        ctx.exit(EXIT_INTERRUPTED)


def _settings(path: Path | None, epochs: int | None, batch_size: int | None, lr: float | None) -> Config:
    from ..config import load_config, parse_config

    config = load_config(path)
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": lr}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if epochs is not None:
        changes["warmup_epochs"] = max(0, min(config.training.warmup_epochs, epochs))
    sections = config.model_dump()
    sections["training"] |= changes
    return parse_config(sections, source="command line")


def _train(run: TrainingRun, device: Any, processes: Any = None) -> None:
    from ..training.recipe import train_bundle

    with _Bar(silent=processes is not None and not processes.is_first) as bar:
        bundle = train_bundle(run, device, processes=processes, progress=bar, on_epoch=bar.tell)
    if bundle is not None:
        for metric in bundle.card.metrics:
            interval = "" if metric.low is None else f" ({metric.low:.3f} to {metric.high:.3f})"
            click.echo(
                f"{metric.split:5} {metric.source:14} {metric.task:42} {metric.name:22} {metric.value:.3f}{interval}"
            )
        click.echo(f"Bundle: {bundle.folder}")
        click.echo(f"Curves: {run.output / 'curves.png'}")


def _launch(gpus: int, params: Mapping[str, Any]) -> int:
    """Start the same command once a GPU through torchrun; its exit code."""
    import torch

    if gpus > torch.cuda.device_count():
        raise DeviceError(f"--gpus {gpus}: there are {torch.cuda.device_count()} CUDA devices here. Ask for fewer.")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}"]
    command += ["-m", "MediScanLib.cli", "train", "--distributed"]
    for key, value in params.items():
        if value is not None and key not in ("gpus", "distributed"):
            command += [f"--{key.replace('_', '-')}", str(value)]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - this program, with its own options


class _Bar:
    """A bar for each stage where standard error is a terminal, and a line for each epoch everywhere."""

    def __init__(self, *, silent: bool) -> None:
        self._silent = silent
        self._stage = ""
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def report(self, stage: str, done: int, total: int) -> None:
        """Move the bar."""
        from tqdm import tqdm

        if stage != self._stage or self._bar is None:
            self.__exit__()
            # disable=None: no bar where standard error is not a terminal
            self._bar = tqdm(total=total, desc=stage, leave=False, disable=True if self._silent else None)
            self._stage = stage
        self._bar.update(done - self._bar.n)

    def cancelled(self) -> bool:
        """Never; an interrupt from the keyboard stops the process."""
        return False

    def tell(self, row: Mapping[str, float]) -> None:
        """One line an epoch."""
        from ..training.history import describe_epoch

        click.echo(describe_epoch(row), err=True)
