"""Where the server computes: models that stay warm, and lanes in which studies wait their turn."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import deque
from concurrent.futures import Future
from dataclasses import replace

from ..config import InferenceConfig
from ..errors import CancelledError, EngineError, MediScanError
from ..network.bundle import Bundle, load_bundle
from ..network.fusion import FusionNetwork
from ..prediction.devices import is_out_of_memory, resolve_device
from ..prediction.engine import Step
from ..prediction.exchange import Request
from ..prediction.predictor import Predictor
from ..prediction.result import Prediction
from ..study.image import MedicalImage
from .metrics import Metrics
from .problems import MissingError, StoppingError

_log = logging.getLogger(__name__)

_WARM_PREDICTORS = 4
"""Settings under which a lane keeps a model; they share its weights."""

_DEFAULTS = InferenceConfig()


class Models:
    """The models of a server, loaded once.

    Args:
        names: Bundles; the first is the default.
        device: See `resolve_device`.
        inference: Settings of requests that bring none, and the largest batch.

    Raises:
        MediScanError: A model is not there or damaged, or there is no such device.
    """

    def __init__(self, names: tuple[str, ...], device: str, inference: InferenceConfig) -> None:
        self.device = resolve_device(device)
        self.inference = inference
        self.bundles: dict[str, Bundle] = {}
        self._networks: dict[str, FusionNetwork] = {}
        for name in names:
            bundle = load_bundle(name)
            self.bundles[bundle.name] = bundle
            self._networks[bundle.name] = bundle.load_network()

    @property
    def default(self) -> str:
        """Name of the model for requests that name none."""
        return next(iter(self.bundles))

    def bundle(self, name: str) -> Bundle:
        """One of the models that are offered.

        Raises:
            MissingError: There is none of that name; names are never taken for paths.
        """
        if name not in self.bundles:
            raise MissingError(
                f"There is no model {name[:100]!r} here. There is: {', '.join(self.bundles)}.", code="model_unknown"
            )
        return self.bundles[name]

    def predictor(self, name: str, settings: InferenceConfig) -> Predictor:
        """A predictor of its own for one thread; all of a model share its weights, but for those that explain more.

        The plain forward pass leaves a network as it is; other explanations may hook themselves into it.
        """
        bundle = self.bundle(name)
        allowed = min(settings.max_batch_size, self.inference.max_batch_size)
        capped = settings.model_copy(update={"max_batch_size": allowed})
        network = self._networks[name] if is_plain(settings) else bundle.load_network()
        return Predictor(bundle, network, self.device, capped)


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


class Lane:
    """A thread that predicts one batch after another; urgent work first.

    Args:
        name: Of the thread.
        models: What it predicts with.
        batch_wait_s: How long an image waits for others.
        metrics: Where batches are counted.
    """

    def __init__(self, name: str, models: Models, batch_wait_s: float, metrics: Metrics) -> None:
        self._models, self._wait, self._metrics = models, batch_wait_s, metrics
        self._predictors: dict[tuple[str, str], Predictor] = {}
        self._urgent: deque[Work] = deque()
        self._later: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._current: list[Work] = []
        self.seconds_each = 0.5
        self._thread = threading.Thread(target=self._run, name=f"mediscan-{name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Studies that wait."""
        return len(self._urgent) + len(self._later)

    @property
    def alive(self) -> bool:
        """Whether its thread lives."""
        return self._thread.is_alive()

    def put(self, work: Work) -> Work:
        """Let a study wait its turn.

        Raises:
            StoppingError: The server is about to stop.
        """
        with self._changed:
            if self._closed:
                raise StoppingError("The server is about to stop. Try again in a moment.", 5)
            (self._urgent if work.urgent else self._later).append(work)
            self._changed.notify_all()
        return work

    def close(self, patience_s: float) -> None:
        """Take no more, finish what is under way if that is soon enough, and cancel the rest."""
        with self._changed:
            self._closed = True
            left = [*self._urgent, *self._later]
            self._urgent.clear()
            self._later.clear()
            self._changed.notify_all()
        for work in left:
            work.future.set_exception(StoppingError("The server was stopped. Try again in a moment.", 5))
        self._thread.join(patience_s)
        if self._thread.is_alive():
            for work in self._current:
                work.cancel()
            self._thread.join(5.0)

    def _run(self) -> None:
        while batch := self._take():
            self._current = batch
            started = time.perf_counter()
            self._predict(batch)
            seconds = (time.perf_counter() - started) / len(batch)
            self.seconds_each += 0.2 * (seconds - self.seconds_each)
            self._metrics.batch.observe(len(batch))
            for work in batch:
                outcome = "failed" if work.future.exception() else "done"
                self._metrics.predictions.labels(work.request.model, outcome).inc()
            self._current = []

    def _take(self) -> list[Work]:
        """The next works of one batch; none once the lane is closed."""
        with self._changed:
            while True:
                while not self._urgent and not self._later:
                    if self._closed:
                        return []
                    self._changed.wait()
                first = (self._urgent or self._later).popleft()
                if not self._gone(first):
                    break
            batch = [first]
            size = self._models.inference.max_batch_size
            end = time.monotonic() + self._wait
            while self._together(first, first):
                for queue in (self._urgent, self._later):
                    for work in [work for work in queue if self._together(first, work)][: size - len(batch)]:
                        queue.remove(work)
                        if not self._gone(work):
                            batch.append(work)
                left = end - time.monotonic()
                if len(batch) >= size or left <= 0 or self._closed:
                    break
                self._changed.wait(left)
            return batch

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

    def _predict(self, batch: list[Work]) -> None:
        try:
            predictor = self._predictor(batch[0])
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
                predictor = self._predictor(work)
                work.future.set_result(predictor(request.image, request.record, slices=request.slices, progress=work))
            except MediScanError as error:
                work.future.set_exception(error)
            except Exception as error:
                work.future.set_exception(_failure(error))
        self._mend()

    def _predictor(self, work: Work) -> Predictor:
        predictor = self._predictors.pop(work.key, None)
        while len(self._predictors) >= _WARM_PREDICTORS:
            del self._predictors[next(iter(self._predictors))]
        predictor = predictor or self._models.predictor(work.request.model, work.request.settings)
        self._predictors[work.key] = predictor
        return predictor

    def _mend(self) -> None:
        """Back to the device after a predictor fled to the CPU for want of memory: its weights are everybody's."""
        for key, predictor in list(self._predictors.items()):
            if predictor.device != self._models.device:
                predictor.network.to(self._models.device)
                del self._predictors[key]


class Compute:
    """The lanes of a server: one for single images, whose clients wait, and one for what takes longer: volumes,
    and explanations that need more than one pass.

    Args:
        models: See `Models`.
        batch_wait_s: See `Lane`.
        metrics: See `Lane`.
    """

    def __init__(self, models: Models, batch_wait_s: float, metrics: Metrics) -> None:
        self.models = models
        self.images = Lane("images", models, batch_wait_s, metrics)
        self.volumes = Lane("volumes", models, 0.0, metrics)

    @property
    def alive(self) -> bool:
        """Whether predictions can be made."""
        return self.images.alive and self.volumes.alive

    def is_volume(self, request: Request) -> bool:
        """Whether a request takes more than one pass of one image."""
        if self.models.bundle(request.model).card.network.spatial_dims == 3:
            return True
        looked_at = request.image.shape[0] if request.slices is None else len(request.slices)
        return looked_at > 1

    def put(self, work: Work) -> Work:
        """Let a study wait in the lane that is right for it.

        Raises:
            MediScanError: No such model, or the server is about to stop.
        """
        self.models.bundle(work.request.model)
        slow = self.is_volume(work.request) or not is_plain(work.request.settings)
        return (self.volumes if slow else self.images).put(work)

    def warm_up(self, image: MedicalImage) -> None:
        """Send an image through each model, so that the first request does not pay for what comes first."""
        for name, bundle in self.models.bundles.items():
            if bundle.card.network.spatial_dims == 2:
                request = Request(replace(image), model=name, settings=self.models.inference)
                self.images.put(Work(request)).future.result()

    def close(self, patience_s: float) -> None:
        """End both lanes."""
        ending = [threading.Thread(target=lane.close, args=(patience_s,)) for lane in (self.images, self.volumes)]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()


def is_plain(settings: InferenceConfig) -> bool:
    """Whether one forward pass gives all that is asked for."""
    extra = ("explanation", "explanation_against", "faithfulness")
    return all(getattr(settings, name, None) == getattr(_DEFAULTS, name, None) for name in extra)


def _failure(error: Exception) -> MediScanError:
    if isinstance(error, MemoryError) or is_out_of_memory(error) or "can't allocate memory" in str(error):
        return EngineError("The server's memory does not suffice for this image. Send fewer slices.")
    # where, without the error's own words
    _log.error("prediction failed: %s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return EngineError(f"The prediction failed ({type(error).__name__}). Tell whoever runs the server.")
