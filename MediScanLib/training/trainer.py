"""The training loop: MONAI engines, a checkpoint every epoch, and the same result however often it is stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EarlyStopping
from monai.engines import SupervisedTrainer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from ..config import TrainingConfig
from ..errors import CancelledError, DataError
from ..network.card import InputSpec
from ..network.fusion import FusionNetwork
from ..progress import Progress
from .answering import Split, answer_split, quiet, validate
from .checkpoint import check_same_run, load_checkpoint, save_checkpoint
from .history import write_history
from .loading import TrainingImages
from .objective import ObjectiveParts, TwoPassObjective
from .optimization import freeze, make_optimizer, make_schedule
from .presence import PresenceBalancer
from .processes import Processes
from .sampling import BalancedBatches, balanced_weights

LAST, BEST, HISTORY = "last.pt", "best.pt", "history.csv"

EpochListener = Callable[[Mapping[str, float]], None]


class Trainer:
    """Trains a network on one split and keeps the weights of its best epoch on another.

    Everything random about an epoch is a function of the seed and the epoch's number, so that a run which goes on
    from the checkpoint of the epoch before repeats what an uninterrupted one would have done.

    Args:
        network: Network, on `device`; its weights change.
        train: Training split.
        val: Validation split.
        spec: Input of the network.
        settings: Training settings.
        folder: Where checkpoints and the history go.
        identity: What a checkpoint must have in common with this run to be resumed, as plain values.
        device: Where to train.
        norm_frozen: Whether batch norms keep the statistics that the encoder came with.
        processes: This process among those that train together.
        progress: Hears of every part of a batch, and may stop the run.
        on_epoch: Hears the figures of every epoch.
    """

    def __init__(
        self,
        network: FusionNetwork,
        train: Split,
        val: Split,
        spec: InputSpec,
        settings: TrainingConfig,
        folder: Path,
        identity: Mapping[str, Any],
        device: torch.device,
        *,
        norm_frozen: bool,
        processes: Processes,
        progress: Progress,
        on_epoch: EpochListener,
    ) -> None:
        self.network, self._train, self._val, self._spec, self._settings = network, train, val, spec, settings
        self._folder, self._identity, self._device = folder, dict(identity), device
        self._norm_frozen, self._processes = norm_frozen, processes
        self._progress, self._on_epoch = progress, on_epoch
        self.history: list[dict[str, float]] = []
        self.objective = TwoPassObjective(network, settings)
        self._wrapped: torch.nn.Module = self.objective
        if processes.count > 1:
            # while the encoder is frozen its parameters have no gradient to wait for
            self._wrapped = DistributedDataParallel(self.objective, find_unused_parameters=settings.frozen_epochs > 0)
        freeze(network.encoder, settings.frozen_stride, depthwise=settings.frozen_depthwise)
        self._optimizer = make_optimizer(network, settings)
        self._batches = BalancedBatches(
            balanced_weights(train.studies),
            settings.batch_size,
            parts=settings.accumulation_steps,
            image_dropout=settings.image_dropout,
            seed=settings.seed,
            rank=processes.rank,
            processes=processes.count,
        )
        self._schedule = make_schedule(self._optimizer, settings, self._batches.steps)
        self._half = half_precision(device) if settings.mixed_precision else None
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._half is torch.float16)
        self._average: Any = None
        if settings.average_decay:
            average = get_ema_multi_avg_fn(settings.average_decay)
            self._average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        self._balancer = PresenceBalancer(
            train.studies,
            train.values,
            train.known,
            field_dropout=settings.field_dropout,
            record_dropout=settings.record_dropout,
        )
        self._engine = self._make_engine()

    @property
    def kept(self) -> FusionNetwork:
        """The network whose weights are kept: the moving average where there is one."""
        kept: FusionNetwork = self.network if self._average is None else self._average.module
        return kept

    @property
    def best_epoch(self) -> int:
        """Epoch of the best figure so far; 0 before the first."""
        if not self.history:
            return 0
        return int(max(self.history, key=lambda row: (self._score(row), -row["epoch"]))["epoch"])

    def run(self) -> FusionNetwork:
        """Train to the end and return the network with the weights of the best epoch.

        Raises:
            CancelledError: `progress` asked to stop; the checkpoint of the last whole epoch is there.
            DataError: The loss is no number any more.
            WriteError: A file cannot be written; the last checkpoint is untouched.
        """
        if not self.history:
            self._save(self._folder / LAST)  # a disk that cannot hold it is noticed now and not after an epoch
        if not self._is_finished():
            self._batches.epoch = len(self.history) + 1
            self._engine.run()
        self._processes.wait()  # until the first process has written the best weights
        self.kept.load_state_dict(load_checkpoint(self._folder / BEST)["network"])
        return self.kept

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: It is missing, damaged, or of another network, other settings or other data.
        """
        state = load_checkpoint(path)
        check_same_run(path, state["identity"], self._identity)
        self.network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._scaler.load_state_dict(state["scaler"])
        self._early_stopping.load_state_dict(state["early_stopping"])
        self.history = state["history"]
        self._engine.state.epoch = len(self.history)
        self._engine.state.iteration = len(self.history) * len(self._batches)

    def _save(self, path: Path) -> None:
        if not self._processes.is_first:
            return
        save_checkpoint(
            path,
            {
                "identity": self._identity,
                "network": self.network.state_dict(),
                "average": None if self._average is None else self._average.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
                "scaler": self._scaler.state_dict(),
                "early_stopping": self._early_stopping.state_dict(),
                "history": self.history,
            },
        )

    def _make_engine(self) -> SupervisedTrainer:
        images = TrainingImages(
            self._train.images,
            self._train.studies,
            self._spec,
            self._settings.augmentation,
            marks=self._train.marks,
            stride=self.network.encoder.stride,
        )
        loader = DataLoader(
            images,
            batch_sampler=self._batches,
            num_workers=self._settings.workers,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # its draws must not shift those of dropout
        )
        engine = quiet(
            SupervisedTrainer(
                device=self._device,
                max_epochs=self._settings.epochs,
                train_data_loader=loader,
                network=self.objective,
                optimizer=self._optimizer,
                loss_function=self.objective,
                iteration_update=self._update,
                decollate=False,
            )
        )
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        self._early_stopping = quiet(
            EarlyStopping(self._settings.patience, lambda _: self._score(self.history[-1]), engine)
        )
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._early_stopping)
        # after early stopping, so that the checkpoint knows of it
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: self._save(self._folder / LAST))
        return engine

    def _start_epoch(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        self._started = time.monotonic()
        self._rate = float(self._optimizer.param_groups[-1]["lr"])
        self._batches.epoch = epoch
        self._plan = [[draw.study for draw in batch] for batch in self._batches.plan(epoch)]
        rng = np.random.default_rng((self._settings.seed, epoch, 1))
        self._values, self._known = (torch.from_numpy(array) for array in self._balancer.draw(rng))
        self._sums = torch.zeros(len(ObjectiveParts._fields), device=self._device)
        self._encoder_frozen = epoch <= self._settings.frozen_epochs
        encoder = self.network.encoder
        self.objective.train()
        if self._encoder_frozen:
            encoder.eval()
        for module in encoder.modules():
            is_norm = isinstance(module, torch.nn.modules.batchnorm._BatchNorm)
            if is_norm and (self._norm_frozen or not module.weight.requires_grad):
                module.eval()
        entropy = (self._settings.seed, epoch, 2, self._processes.rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def _update(self, engine: Engine, batch: dict[str, Any]) -> None:
        if self._progress.cancelled():
            raise CancelledError(f"Cancelled in epoch {engine.state.epoch}; go on with --resume {self._folder / LAST}")
        position = (int(engine.state.iteration) - 1) % len(self._batches)
        step, part = divmod(position, self._batches.parts)
        is_last = part == self._batches.parts - 1
        rows: Tensor = batch["index"]
        whole = self._train.targets.of_rows(torch.tensor(self._plan[step]))
        with self._accumulating(is_last), self._autocast():
            parts: ObjectiveParts = self._wrapped(
                batch["image"].to(self._device, memory_format=self._memory_format(), non_blocking=True),
                self._values[rows].to(self._device),
                self._known[rows].to(self._device),
                self._train.targets.of_rows(rows, self._device),
                batch["image_shown"].to(self._device),
                self.objective.denominators(whole, self._processes.count),
                self._encoder_frozen,
                batch["marks"].to(self._device),
            )
            self._scaler.scale(parts.total).backward()
        self._sums += torch.stack(parts).detach()
        if is_last:
            self._step()
        stage = f"epoch {engine.state.epoch} of {self._settings.epochs}"
        self._progress.report(stage, position + 1, len(self._batches))

    def _step(self) -> None:
        self._scaler.unscale_(self._optimizer)
        if self._settings.gradient_clip:
            trained = [p for p in self.network.parameters() if p.grad is not None]
            torch.nn.utils.clip_grad_norm_(trained, self._settings.gradient_clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad()
        self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self.network)

    def _end_epoch(self, engine: Engine) -> None:
        sums = torch.stack(self._processes.gather(self._sums.cpu())).mean(0) / self._batches.steps
        if not bool(torch.isfinite(sums).all()):
            raise DataError(
                f"The loss of epoch {engine.state.epoch} is no number any more. Lower training.learning_rate, or set "
                f"training.mixed_precision: false; {self._folder / LAST} holds the epoch before."
            )
        row = {
            "epoch": float(engine.state.epoch),
            "learning_rate": self._rate,
            **{f"train_{name}": float(value) for name, value in zip(ObjectiveParts._fields, sums, strict=True)},
            **{f"val_{name}": value for name, value in self._validate().items()},
            "seconds": time.monotonic() - self._started,
        }
        self.history.append(row)
        if self._processes.is_first:
            if self.best_epoch == engine.state.epoch:
                save_checkpoint(self._folder / BEST, {"epoch": engine.state.epoch, "network": self.kept.state_dict()})
            write_history(self._folder / HISTORY, self.history)
            self._on_epoch(row)

    def _validate(self) -> dict[str, float]:
        output = answer_split(
            self.kept,
            self._val,
            self._spec,
            self._device,
            batch_size=max(1, self._settings.batch_size // self._settings.accumulation_steps),
            workers=self._settings.workers,
            processes=self._processes,
        )
        return validate(output, self._val.targets, self.objective)

    def _score(self, row: Mapping[str, float]) -> float:
        if self._settings.monitor == "last":
            return row["epoch"]
        return -row["val_loss"] if self._settings.monitor == "loss" else row[f"val_{self._settings.monitor}"]

    def _is_finished(self) -> bool:
        waited = self._early_stopping.counter >= self._settings.patience
        return len(self.history) >= self._settings.epochs or waited

    def _memory_format(self) -> torch.memory_format:
        return self.network.encoder.memory_format

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._half is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, self._half)

    @contextlib.contextmanager
    def _accumulating(self, is_last: bool) -> Iterator[None]:
        """Gradients travel between processes with the last part of a batch only."""
        if isinstance(self._wrapped, DistributedDataParallel) and not is_last:
            with self._wrapped.no_sync():
                yield
        else:
            yield


def half_precision(device: torch.device) -> torch.dtype | None:
    """The half precision that a device computes well in; None for none."""
    if device.type == "cpu":  # without AMX, bfloat16 is emulated
        return torch.bfloat16 if torch.cpu.get_capabilities().get("amx_bf16") else None
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
