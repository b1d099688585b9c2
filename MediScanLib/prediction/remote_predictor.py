"""`RemotePredictor`: stands where a `Predictor` stands, and asks a server. For programs that may wait."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import InferenceConfig
from ..network.bundle import DEFAULT_BUNDLE
from ..progress import Progress
from ..study.image import MedicalImage
from ..study.record import ClinicalRecord
from .exchange import Request
from .result import Prediction
from .server_client import ServerClient


class RemotePredictor:
    """A model on a server.

    Args:
        client: The server.
        model: Name of a model there.
        settings: Batch size, confidence threshold and which parts are wanted.

    Attributes:
        model: What the server says of it.
        settings: As given, but that images go one by one: the server puts those of all its clients together.

    Raises:
        ServerError: The server cannot be used, or does not have the model.
    """

    def __init__(
        self, client: ServerClient, model: str = DEFAULT_BUNDLE, settings: InferenceConfig | None = None
    ) -> None:
        self._client = client
        self._settings = settings or InferenceConfig()
        self.model = client.info().model(model)
        self.settings = self._settings.model_copy(update={"max_batch_size": 1})

    def __call__(
        self,
        image: MedicalImage,
        record: ClinicalRecord | None = None,
        *,
        slices: Sequence[int] | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Predict one study there; see `Predictor`."""
        asked = Request(
            image, record or ClinicalRecord(), model=self.model.name, slices=slices, settings=self._settings
        )
        return self._client.predict(asked, progress)

    def predict_batch(self, studies: Sequence[tuple[MedicalImage, ClinicalRecord | None]]) -> list[Prediction]:
        """Predict studies one after another."""
        return [self(image, record) for image, record in studies]
