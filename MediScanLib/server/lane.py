"""Lanes in which studies wait their turn, and the threads that predict them."""

from __future__ import annotations

import logging
import math
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ..config import InferenceConfig
from ..errors import CancelledError, EngineError, MediScanError
from ..prediction.devices import is_out_of_memory
from ..prediction.engine import Step
from ..prediction.exchange import Request
from ..prediction.predictor import Predictor
from ..prediction.result import Prediction
from .metrics import Metrics
from .problems import StoppingError

if TYPE_CHECKING:
    from .compute import Models

_log = logging.getLogger(__name__)

_WARM_PREDICTORS = 4
"""Settings under which a thread keeps a model; they share its weights."""

_REST_S = 2.0
"""A thread ends after so long without work. OpenMP keeps a team for every thread that ever computed with several
processors, and once teams have more members than there are processors, all sleep between any two steps: everything
then takes twice as long."""

_DEFAULTS = InferenceConfig()


class Work:
    """One study on its way through a lane; also the `Progress` that its prediction reports to.

    Args:
        request: What is asked.
        alone: Never together with others in one batch: the last digits would then depend on them.
        urgent: Somebody waits for it.

    Attributes:
        future: Of its prediction.
        step: How far it is.
    """

    def __init__(self, request: Request, *, alone: bool = False, urgent: bool = True) -> None:
        self.request, self.alone, self.urgent = request, alone, urgent
        self.future: Future[Prediction] = Future()
        self.step = Step("waiting", 0, 0)
        self._stop = threading.Event()

    @property
    def key(self) -> tuple[str, str]:
        """Works of the same key can be predicted by the same predictor."""
        return self.request.model, self.request.settings.model_dump_json()

    def report(self, stage: str, done: int, total: int) -> None:
        """See `Progress`."""
        self.step = Step(stage, done, total)

    def cancelled(self) -> bool:
        """See `Progress`."""
        return self._stop.is_set()

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._stop.set()


@dataclass
class _Seat:
    """One of a lane's threads, and what stays while there is none.

    Attributes:
        thread: None while there is no work.
        predictors: Warm ones, by what they can predict.
        current: What is being predicted.
    """

    thread: threading.Thread | None = None
    predictors: dict[tuple[str, str], Predictor] = field(default_factory=dict)
    current: list[Work] = field(default_factory=list)


class Lane:
    """Threads that predict one batch after another; urgent work first. There are none while there is no work.

    Args:
        name: Of the threads.
        models: What they predict with.
        batch_wait_s: How long an image waits for others.
        metrics: Where batches are counted.
        abreast: How many threads there are at most.
        processors: How many each of them computes with; those of the process where None.
        rest_s: A thread ends after so long without work.
    """

    def __init__(
        self,
        name: str,
        models: Models,
        batch_wait_s: float,
        metrics: Metrics,
        *,
        abreast: int = 1,
        processors: int | None = None,
        rest_s: float = _REST_S,
    ) -> None:
        self._name, self._models, self._wait, self._metrics = name, models, batch_wait_s, metrics
        self._processors = processors or torch.get_num_threads()
        self._rest = rest_s
        self._urgent: deque[Work] = deque()
        self._later: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._idle = 0
        self._seats = [_Seat() for _ in range(abreast)]
        self._seconds_each = 0.5

    @property
    def waiting(self) -> int:
        """Studies that wait."""
        return len(self._urgent) + len(self._later)

    @property
    def busy(self) -> bool:
        """Whether a study waits or is being predicted."""
        return self.waiting > 0 or any(seat.current for seat in self._seats)

    @property
    def alive(self) -> bool:
        """Whether works are done: no thread has died of one."""
        return all(seat.thread is None or seat.thread.is_alive() for seat in self._seats)

    @property
    def resting(self) -> bool:
        """Whether it has no threads."""
        return all(seat.thread is None for seat in self._seats)

    @property
    def seconds_each(self) -> float:
        """What a study adds to the wait of those behind it."""
        return self._seconds_each / len(self._seats)

    def put(self, work: Work) -> Work:
        """Let a study wait its turn.

        Raises:
            StoppingError: The server is about to stop.
        """
        with self._changed:
            if self._closed:
                raise StoppingError("The server is about to stop. Try again in a moment.", 5)
            (self._urgent if work.urgent else self._later).append(work)
            empty = next((seat for seat in self._seats if seat.thread is None), None)
            if empty is not None and self.waiting > self._idle:
                name = f"mediscan-{self._name}"
                empty.thread = threading.Thread(target=self._run, args=(empty,), name=name, daemon=True)
                empty.thread.start()
            self._changed.notify_all()
        return work

    def close(self, patience_s: float) -> None:
        """Take no more, finish what is under way if that is soon enough, and cancel the rest."""
        with self._changed:
            self._closed = True
            left = [*self._urgent, *self._later]
            self._urgent.clear()
            self._later.clear()
            threads = [seat.thread for seat in self._seats if seat.thread is not None]
            self._changed.notify_all()
        for work in left:
            work.future.set_exception(StoppingError("The server was stopped. Try again in a moment.", 5))
        _join(threads, patience_s)
        if any(thread.is_alive() for thread in threads):
            for work in [work for seat in self._seats for work in seat.current]:
                work.cancel()
            _join(threads, 5.0)

    def _run(self, seat: _Seat) -> None:
        # The number is this thread's own, but torch gives a thread the last one that any has set when it first asks:
        # without asking first, a thread of another lane that starts in between decides, and digits with it.
        torch.get_num_threads()
        torch.set_num_threads(self._processors)
        while self._take(seat):
            batch = seat.current
            started = time.perf_counter()
            self._predict(seat)
            seconds = (time.perf_counter() - started) / len(batch)
            with self._changed:
                self._seconds_each += 0.2 * (seconds - self._seconds_each)
            self._metrics.batch.observe(len(batch))
            for work in batch:
                outcome = "failed" if work.future.exception() else "done"
                self._metrics.predictions.labels(work.request.model, outcome).inc()
            seat.current = []

    def _take(self, seat: _Seat) -> bool:
        """Give a seat the next works of one batch; False where its thread ends: the lane is closed, or it rests."""
        with self._changed:
            while True:
                if not self._wait_for_work():
                    seat.thread = None
                    return False
                first = (self._urgent or self._later).popleft()
                if not self._gone(first):
                    break
            seat.current = batch = [first]
            end = time.monotonic() + self._wait
            while self._together(first, first):
                room = self._room(len(batch)) - len(batch)
                for queue in (self._urgent, self._later):
                    for work in [work for work in queue if self._together(first, work)][: max(0, room)]:
                        queue.remove(work)
                        if not self._gone(work):
                            batch.append(work)
                            room -= 1
                left = end - time.monotonic()
                if len(batch) >= self._models.inference.max_batch_size or left <= 0 or self._closed:
                    break
                self._changed.wait(left)
            return True

    def _wait_for_work(self) -> bool:
        self._idle += 1
        try:
            return bool(self._changed.wait_for(lambda: self._closed or self.waiting, self._rest) and self.waiting)
        finally:
            self._idle -= 1

    def _room(self, taken: int) -> int:
        """How large a batch may become: what waits is shared with the seats that have nothing to do."""
        free = sum(not seat.current for seat in self._seats)
        return min(self._models.inference.max_batch_size, math.ceil((taken + self.waiting) / (1 + free)))

    @staticmethod
    def _together(first: Work, other: Work) -> bool:
        return (
            not other.alone
            and other.key == first.key
            and other.request.image.shape[0] == 1
            and other.request.slices is None
            and is_plain(other.request.settings)
        )

    @staticmethod
    def _gone(work: Work) -> bool:
        if work.cancelled():
            work.future.set_exception(CancelledError("Cancelled."))
            return True
        return False

    def _predict(self, seat: _Seat) -> None:
        batch = seat.current
        try:
            predictor = self._predictor(seat, batch[0])
            if len(batch) > 1:
                studies = [(work.request.image, work.request.record) for work in batch]
                predictions = predictor.predict_batch(studies)
                for work, prediction in zip(batch, predictions, strict=True):
                    work.future.set_result(prediction)
                return
        except Exception as error:  # one by one below tells which it was
            _log.debug("a batch failed: %s", type(error).__name__)
        for work in batch:
            if work.future.done():
                continue
            try:
                request = work.request
                predictor = self._predictor(seat, work)
                work.future.set_result(predictor(request.image, request.record, slices=request.slices, progress=work))
            except MediScanError as error:
                work.future.set_exception(error)
            except Exception as error:
                work.future.set_exception(_failure(error))
        self._mend(seat)

    def _predictor(self, seat: _Seat, work: Work) -> Predictor:
        warm = seat.predictors
        predictor = warm.pop(work.key, None)
        while len(warm) >= _WARM_PREDICTORS:
            del warm[next(iter(warm))]
        predictor = predictor or self._models.predictor(work.request.model, work.request.settings)
        warm[work.key] = predictor
        return predictor

    def _mend(self, seat: _Seat) -> None:
        """Back to the device after a predictor fled to the CPU for want of memory: its weights are everybody's."""
        for key, predictor in list(seat.predictors.items()):
            if predictor.device != self._models.device:
                predictor.network.to(self._models.device)
                del seat.predictors[key]


def is_plain(settings: InferenceConfig) -> bool:
    """Whether one forward pass gives all that is asked for."""
    extra = ("explanation", "explanation_against", "faithfulness")
    return all(getattr(settings, name, None) == getattr(_DEFAULTS, name, None) for name in extra)


def _join(threads: list[threading.Thread], seconds: float) -> None:
    """Wait for all of them together."""
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _failure(error: Exception) -> MediScanError:
    if isinstance(error, MemoryError) or is_out_of_memory(error) or "can't allocate memory" in str(error):
        return EngineError("The server's memory does not suffice for this image. Send fewer slices.")
    # where, without the error's own words
    _log.error("prediction failed: %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return EngineError(f"The prediction failed ({type(error).__name__}). Tell whoever runs the server.")
