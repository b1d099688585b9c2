"""`Predictor`: a model on a device that turns studies into predictions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..config import InferenceConfig
from ..errors import BundleError, CancelledError
from ..network.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from ..network.fusion import FusionNetwork, HeadOutput, average_pool
from ..progress import Progress, SilentProgress
from ..study.image import MedicalImage
from ..study.record import ClinicalRecord
from .activation import ActivationResult, class_activation_maps
from .assembly import Scores, assemble
from .calibrated import calibrated_probabilities
from .devices import is_out_of_memory, resolve_device
from .heatmaps import AxisMap, HeatMaps
from .preprocessing import NetworkInput, prepare_clinical, prepare_slices, prepare_volume
from .result import Prediction, Provenance

Study = tuple[MedicalImage, ClinicalRecord | None]


class Predictor:
    """Runs one model. Keeps it on its device between calls; not safe for use from several threads at once.

    Args:
        bundle: Where the network and its card come from.
        network: The network, in evaluation mode; it is moved to `device`.
        device: Where to run.
        settings: Batch size, confidence threshold and which parts are wanted.
    """

    def __init__(
        self,
        bundle: Bundle,
        network: FusionNetwork,
        device: torch.device,
        settings: InferenceConfig | None = None,
    ) -> None:
        self.bundle = bundle
        self.settings = settings or InferenceConfig()
        self.device = device
        self.network = network.eval().to(device)
        # the layout in which convolutions run fastest; torch's stubs know `to` with other arguments only
        self.network.to(memory_format=network.encoder.memory_format)  # type: ignore[call-overload]
        self._notes: list[str] = []

    @classmethod
    def load(
        cls, name_or_folder: str | Path = DEFAULT_BUNDLE, device: str = "auto", settings: InferenceConfig | None = None
    ) -> Predictor:
        """Load a bundle onto a device.

        Args:
            name_or_folder: Name of a bundle in the search path, or its folder.
            device: "auto", "cpu", "cuda", "cuda:N" or "mps".
            settings: See the class.

        Raises:
            BundleError: No such bundle, or a damaged one.
            DeviceError: No such device.
        """
        chosen = resolve_device(device)
        bundle = load_bundle(name_or_folder)
        return cls(bundle, bundle.load_network(), chosen, settings)

    def __call__(
        self,
        image: MedicalImage,
        record: ClinicalRecord | None = None,
        *,
        slices: Sequence[int] | None = None,
        progress: Progress | None = None,
    ) -> Prediction:
        """Predict one study.

        A 2D network looks at a volume slice by slice; `Prediction.volume_rule` states how the slices become one
        result. Age and sex that the record leaves open are taken from the image header and marked as prefilled.

        Args:
            image: Image or volume.
            record: What is known of the patient.
            slices: Slices to look at; all of them where None. For a 2D network only.
            progress: Hears of every batch of slices and may cancel.

        Raises:
            UsageError: A slice that the image does not have.
            CancelledError: `progress` asked to stop.
        """
        started = time.perf_counter()
        known = (record or ClinicalRecord()).with_prefill(image.prefill)
        progress = progress or SilentProgress()
        self._notes = []
        if self.bundle.card.network.spatial_dims == 3:
            prepared = prepare_volume(image, self.bundle.card.input)
            parts = [self._run(prepared.tensor, known)]
            if slices is not None:
                self._notes.append("The model reads whole volumes: the choice of slices was not used.")
        else:
            wanted = tuple(range(image.shape[0])) if slices is None else tuple(slices)
            prepared, parts = self._run_slices(image, known, wanted, progress)
        return self._assemble(image, known, prepared, parts, time.perf_counter() - started)

    def predict_batch(self, studies: Sequence[Study]) -> list[Prediction]:
        """Predict single-slice studies together, as many at once as `max_batch_size` allows.

        Args:
            studies: Images with one slice each and their records; a 2D network only, others go one by one.
        """
        if self.bundle.card.network.spatial_dims == 3 or any(image.shape[0] > 1 for image, _ in studies):
            return [self(image, record) for image, record in studies]
        predictions: list[Prediction] = []
        size = self.settings.max_batch_size
        for start in range(0, len(studies), size):
            started = time.perf_counter()
            self._notes = []
            chunk = [
                (image, (record or ClinicalRecord()).with_prefill(image.prefill))
                for image, record in studies[start : start + size]
            ]
            prepared = [prepare_slices(image, self.bundle.card.input, (0,)) for image, _ in chunk]
            outputs = self._run_records(torch.cat([p.tensor for p in prepared]), [record for _, record in chunk])
            seconds = (time.perf_counter() - started) / len(chunk)
            predictions += [
                self._assemble(image, record, inputs, [output], seconds)
                for (image, record), inputs, output in zip(chunk, prepared, outputs.split(), strict=True)
            ]
        return predictions

    def _run_slices(
        self, image: MedicalImage, record: ClinicalRecord, wanted: tuple[int, ...], progress: Progress
    ) -> tuple[NetworkInput, list[_Output]]:
        parts: list[_Output] = []
        size = self.settings.max_batch_size
        progress.report("slices", 0, len(wanted))
        for start in range(0, len(wanted), size):
            if progress.cancelled():
                raise CancelledError(f"Cancelled after {start} of {len(wanted)} slices.")
            prepared = prepare_slices(image, self.bundle.card.input, wanted[start : start + size])
            parts.append(self._run(prepared.tensor, record))
            progress.report("slices", min(start + size, len(wanted)), len(wanted))
        return NetworkInput(prepared.tensor[:0], prepared.axes, wanted), parts

    def _run(self, tensor: Tensor, record: ClinicalRecord) -> _Output:
        return self._run_records(tensor, [record] * len(tensor))

    def _run_records(self, tensor: Tensor, records: Sequence[ClinicalRecord]) -> _Output:
        """The network on a batch; out of memory halves the batch, and at the last moves to the CPU."""
        values, known = prepare_clinical(records, self.bundle.card)
        size = len(tensor)
        while True:
            try:
                outputs = [
                    self._forward(tensor[i : i + size], values[i : i + size], known[i : i + size])
                    for i in range(0, len(tensor), size)
                ]
                return _Output.join(outputs)
            except RuntimeError as error:
                if self.device.type == "cpu" or not is_out_of_memory(error):
                    raise
            # outside the handler, so that the traceback no longer keeps the tensors of the failed attempt alive
            size = self._after_out_of_memory(size)

    def _after_out_of_memory(self, size: int) -> int:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if size > 1:
            self._notes.append(f"{self.device} was out of memory with a batch of {size}; tried {size // 2}.")
            return size // 2
        self._notes.append(f"{self.device} was out of memory with a single image; the CPU was used instead.")
        self.device = torch.device("cpu")
        self.network.to(self.device)
        return size

    @torch.inference_mode()
    def _forward(self, tensor: Tensor, values: Tensor, known: Tensor) -> _Output:
        device = self.device
        # an even picture comes out of the preprocessing as black as the padding around it
        flat = tensor.flatten(1)
        contrast = (flat.amax(dim=1) > flat.amin(dim=1)).numpy()
        features = self.network.features(tensor.to(device))
        result: HeadOutput | ActivationResult
        if self.settings.explainability:
            result = class_activation_maps(self.network, features, values.to(device), known.to(device))
            maps: Tensor | None = result.maps.float().cpu()
        else:
            result = self.network.head(features, values.to(device), known.to(device))
            maps = None
        probabilities = calibrated_probabilities(result.logits, self.bundle.card.calibration)
        severity = torch.sigmoid(result.severity.double().cpu())
        if not bool(torch.isfinite(probabilities).all() and torch.isfinite(severity).all()):
            raise BundleError(
                f"{self.bundle.folder}: the model gave a result that is not a number. Use another model."
            )
        far = self.network.novelty
        novelty = None if far is None else far(average_pool(features)).double().cpu().numpy()
        return _Output(
            probabilities.numpy(), severity.numpy(), contrast, None if maps is None else maps.numpy(), novelty
        )

    def _assemble(
        self,
        image: MedicalImage,
        record: ClinicalRecord,
        prepared: NetworkInput,
        parts: list[_Output],
        seconds: float,
    ) -> Prediction:
        output = _Output.join(parts)
        maps = None if output.maps is None else self._heat_maps(image, prepared, output.maps)
        card = self.bundle.card
        provenance = Provenance(
            model=card.name,
            model_version=card.version,
            model_sha256=self.bundle.sha256,
            device=str(self.device),
            runtime=f"torch {torch.__version__}",
            versions=_versions(),
            seconds={"prediction": round(seconds, 4)},
            notes=list(self._notes),
        )
        scores = Scores(output.probabilities, output.severity, bool(output.contrast.any()), output.novelty)
        return assemble(image, record, card, self.settings, scores, prepared.slices, maps, provenance)

    def _heat_maps(self, image: MedicalImage, prepared: NetworkInput, maps: np.ndarray) -> HeatMaps:
        """From (sample, finding, *spatial) to maps that know their way back to the image."""
        encoder = self.network.encoder
        slices, rows, columns = (
            None
            if axis is None
            else AxisMap(axis.scale / encoder.stride, (axis.offset - encoder.offset) / encoder.stride)
            for axis in prepared.axes
        )
        assert rows is not None and columns is not None
        return HeatMaps(
            labels=tuple(self.bundle.card.labels),
            # one volume: (finding, slice, row, column); slices: the samples are the slices
            values=np.ascontiguousarray(maps[0] if slices is not None else maps.swapaxes(0, 1)),
            shape=image.shape,
            rows=rows,
            columns=columns,
            slices=prepared.slices if slices is None else slices,
            scales=tuple(self.bundle.card.heat_map_scales[label] for label in self.bundle.card.labels),
        )


@dataclass(frozen=True)
class _Output:
    """Scores and maps of a batch of samples, one a row; None where they were not asked for or cannot be had."""

    probabilities: np.ndarray
    severity: np.ndarray
    contrast: np.ndarray
    maps: np.ndarray | None
    novelty: np.ndarray | None

    def split(self) -> list[_Output]:
        """One output a sample."""
        return [
            _Output(*(None if part is None else part[i : i + 1] for part in self._parts()))  # type: ignore[arg-type]
            for i in range(len(self.probabilities))
        ]

    @staticmethod
    def join(outputs: Sequence[_Output]) -> _Output:
        """The samples of all outputs in one."""
        if len(outputs) == 1:
            return outputs[0]
        columns = zip(*(output._parts() for output in outputs), strict=True)
        return _Output(*(None if column[0] is None else np.concatenate(column) for column in columns))  # type: ignore[arg-type]

    def _parts(self) -> tuple[np.ndarray | None, ...]:
        return self.probabilities, self.severity, self.contrast, self.maps, self.novelty


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {"mediscan": __version__, "torch": torch.__version__, "numpy": np.__version__}
    for package in ("monai", "pydicom"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
