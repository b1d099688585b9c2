"""Where the server computes: models that stay warm, and the lanes that lead to them."""

from __future__ import annotations

import threading
from dataclasses import replace

import torch

from ..config import InferenceConfig
from ..network.bundle import Bundle, load_bundle
from ..network.fusion import FusionNetwork
from ..prediction.devices import resolve_device
from ..prediction.exchange import Request
from ..prediction.predictor import Predictor
from ..study.image import MedicalImage
from .lane import Lane, Work, is_plain
from .metrics import Metrics
from .problems import MissingError


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


class Compute:
    """The lanes of a server, each for other work.

    * images: single images whose clients wait, one after another with all processors of the process; on a GPU as many
      in a pass as wait. What must not depend on others goes here, and an image that comes while nothing else is done.
    * crowd: single images that come while others are there, on processors only: as many passes abreast as there are
      processors, each with one. Together they are done sooner, since a pass on several processors waits for the
      slowest of them at every step, and the decoders and the network card need processors too. Their last digits are
      others; there is none where images must not share passes either, for which a server has a largest batch of 1.
    * volumes: what takes longer, volumes and explanations that need more than one pass.

    Args:
        models: See `Models`.
        batch_wait_s: See `Lane`.
        metrics: See `Lane`.
        processors: How many there are; those that torch uses where None.
    """

    def __init__(self, models: Models, batch_wait_s: float, metrics: Metrics, processors: int | None = None) -> None:
        self.models = models
        count = processors or torch.get_num_threads()
        self.images = Lane("images", models, batch_wait_s, metrics, processors=count)
        self.volumes = Lane("volumes", models, 0.0, metrics, processors=count)
        self.crowd: Lane | None = None
        if models.device.type == "cpu" and count > 1 and models.inference.max_batch_size > 1:
            self.crowd = Lane("crowd", models, batch_wait_s, metrics, abreast=count, processors=1)

    @property
    def lanes(self) -> list[Lane]:
        """All of them."""
        return [self.images, self.volumes] if self.crowd is None else [self.images, self.volumes, self.crowd]

    @property
    def alive(self) -> bool:
        """Whether predictions can be made."""
        return all(lane.alive for lane in self.lanes)

    @property
    def images_waiting(self) -> int:
        """Single images that wait."""
        return self.images.waiting + (0 if self.crowd is None else self.crowd.waiting)

    @property
    def seconds_each(self) -> float:
        """What a single image adds to the wait of those behind it."""
        return (self.crowd or self.images).seconds_each

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
        if self.is_volume(work.request) or not is_plain(work.request.settings):
            return self.volumes.put(work)
        if self.crowd is None or work.alone or not any(lane.busy for lane in self.lanes):
            return self.images.put(work)
        return self.crowd.put(work)

    def warm_up(self, image: MedicalImage) -> None:
        """Send an image through each model, so that the first request does not pay for what comes first."""
        for name, bundle in self.models.bundles.items():
            if bundle.card.network.spatial_dims == 2:
                request = Request(replace(image), model=name, settings=self.models.inference)
                self.images.put(Work(request)).future.result()

    def close(self, patience_s: float) -> None:
        """End all lanes."""
        ending = [threading.Thread(target=lane.close, args=(patience_s,)) for lane in self.lanes]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
