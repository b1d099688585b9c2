"""`Predictor`: a model on a device that turns studies into predictions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..config import InferenceConfig
from ..errors import BundleError, CancelledError, UsageError
from ..network.bundle import DEFAULT_BUNDLE, Bundle, load_bundle
from ..network.cases import CASES_FILE
from ..network.fusion import FusionNetwork, HeadOutput, average_pool
from ..progress import Progress, SilentProgress
from ..study.image import MedicalImage
from ..study.record import ClinicalRecord
from .activation import ActivationResult, class_activation_maps
from .assembly import Evidence, assemble, volume_scores
from .attribution import attribute, seen_by_head
from .calibrated import calibrated_probabilities
from .certainty import draw
from .devices import is_out_of_memory, resolve_device
from .heatmaps import AxisMap, HeatMaps
from .modalities import modality_shares
from .outputs import Output
from .preprocessing import NetworkInput, prepare_clinical, prepare_slices, prepare_volume
from .remembering import Encoded, LastStudy, Remembered, encoder_state, image_key
from .result import Prediction, Provenance, SimilarCase
from .similar import similar_cases

Study = tuple[MedicalImage, ClinicalRecord | None]


class Predictor:
    """Runs one model. Keeps it on its device between calls; not safe for use from several threads at once.

    What the encoder made of the last study is kept, so that the same image with another record costs the head only.

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
        self._last = LastStudy()
        self._cases = bundle.load_cases(network) if CASES_FILE in bundle.card.files else ()

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
        whole = self.bundle.card.network.spatial_dims == 3
        wanted = () if whole else tuple(range(image.shape[0])) if slices is None else tuple(slices)
        if not whole and not wanted:
            raise UsageError(f"{image.source or 'image'}: no slice was chosen. Choose one at least.")
        prepared, output = self._look(image, known, wanted, progress)
        if whole and slices is not None:
            self._notes.append("The model reads whole volumes: the choice of slices was not used.")
        evidence = self._evidence(output, known, wanted)
        prediction = self._assemble(image, known, prepared, output, evidence, time.perf_counter() - started)
        from .explained import explained, wants_explanation  # which needs this module

        if not wants_explanation(self):
            return prediction
        return explained(self, prediction, image, known, None if whole else wanted, progress)

    def predict_batch(self, studies: Sequence[Study]) -> list[Prediction]:
        """Predict single-slice studies together, as many at once as `max_batch_size` allows.

        Args:
            studies: Images with one slice each and their records; a 2D network only, others go one by one.
        """
        from .explained import wants_explanation  # which needs this module

        alone = self.bundle.card.network.spatial_dims == 3 or wants_explanation(self)
        if alone or any(image.shape[0] > 1 for image, _ in studies):
            return [self(image, record) for image, record in studies]
        self._last.forget()  # its memory goes to the batch
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
            together = self._run_records(torch.cat([p.tensor for p in prepared]), [record for _, record in chunk])
            outputs = together.split()
            found = [self._evidence(output, chunk[i][1], (0,)) for i, output in enumerate(outputs)]
            seconds = (time.perf_counter() - started) / len(chunk)
            predictions += [
                self._assemble(image, record, inputs, output, evidence, seconds)
                for (image, record), inputs, output, evidence in zip(chunk, prepared, outputs, found, strict=True)
            ]
        return predictions

    def _look(
        self, image: MedicalImage, record: ClinicalRecord, wanted: tuple[int, ...], progress: Progress
    ) -> tuple[NetworkInput, Output]:
        """One study through the network, and not through the encoder where that saw it last.

        Args:
            image: Image or volume.
            record: What is known of the patient.
            wanted: Slices to look at; empty for a 3D network.
            progress: Hears of every batch of slices.
        """
        key = (
            image_key(image, wanted or None),
            self.bundle.card.input,
            encoder_state(self.network),
            self.device,
            self.settings.max_batch_size,
        )
        seen = self._last.recall(key)
        if seen is not None:
            again = self._look_again(seen, record, progress)
            if again is not None:
                return seen.prepared, again
            seen = None  # its memory goes before the next comes
        self._last.begin(key)
        if not wanted:
            prepared = prepare_volume(image, self.bundle.card.input)
            output = self._run(prepared.tensor, record)
        else:
            prepared, output = self._run_slices(image, record, wanted, progress)
        self._last.finish(prepared)
        return prepared, output

    def _look_again(self, seen: Remembered, record: ClinicalRecord, progress: Progress) -> Output | None:
        """The head alone; None where the device has not even the memory for that."""
        values, known = prepare_clinical([record], self.bundle.card)
        parts: list[Output] = []
        steps = _Steps(progress, len(seen.prepared.slices))
        try:
            for batch in seen.batches:
                steps.before()
                size = len(batch.features)
                parts.append(self._answer(batch, values.expand(size, -1), known.expand(size, -1)))
                steps.after(size)
        except RuntimeError as error:
            if self.device.type == "cpu" or not is_out_of_memory(error):
                raise
            return None
        return Output.join(parts)

    def _run_slices(
        self, image: MedicalImage, record: ClinicalRecord, wanted: tuple[int, ...], progress: Progress
    ) -> tuple[NetworkInput, Output]:
        parts: list[Output] = []
        steps = _Steps(progress, len(wanted))
        size = self.settings.max_batch_size
        for start in range(0, len(wanted), size):
            steps.before()
            prepared = prepare_slices(image, self.bundle.card.input, wanted[start : start + size])
            parts.append(self._run(prepared.tensor, record))
            steps.after(len(prepared.tensor))
        return NetworkInput(prepared.tensor[:0], prepared.axes, wanted), Output.join(parts)

    def _run(self, tensor: Tensor, record: ClinicalRecord) -> Output:
        return self._run_records(tensor, [record] * len(tensor))

    def _run_records(self, tensor: Tensor, records: Sequence[ClinicalRecord]) -> Output:
        """The network on a batch; out of memory halves the batch, and at the last moves to the CPU."""
        values, known = prepare_clinical(records, self.bundle.card)
        size = len(tensor)
        while True:
            try:
                outputs = [
                    self._forward(tensor[i : i + size], values[i : i + size], known[i : i + size])
                    for i in range(0, len(tensor), size)
                ]
                return Output.join(outputs)
            except RuntimeError as error:
                if self.device.type == "cpu" or not is_out_of_memory(error):
                    raise
            # outside the handler, so that the traceback no longer keeps the tensors of the failed attempt alive
            size = self._after_out_of_memory(size)

    def _after_out_of_memory(self, size: int) -> int:
        self._last.forget()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if size > 1:
            self._notes.append(f"{self.device} was out of memory with a batch of {size}; tried {size // 2}.")
            return size // 2
        self._notes.append(f"{self.device} was out of memory with a single image; the CPU was used instead.")
        self.device = torch.device("cpu")
        self.network.to(self.device)
        return size

    def _forward(self, tensor: Tensor, values: Tensor, known: Tensor) -> Output:
        return self._answer(self._encode(tensor), values, known)

    @torch.inference_mode()
    def _encode(self, tensor: Tensor) -> Encoded:
        # an even picture comes out of the preprocessing as black as the padding around it
        flat = tensor.flatten(1)
        contrast = (flat.amax(dim=1) > flat.amin(dim=1)).numpy()
        encoded = Encoded(self.network.features(tensor.to(self.device)), contrast)
        self._last.add(encoded)
        return encoded

    @torch.inference_mode()
    def _answer(self, encoded: Encoded, values: Tensor, known: Tensor) -> Output:
        features, device = encoded.features, self.device
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
            raise self._not_a_number()
        far, pooled = self.network.novelty, average_pool(features)
        novelty = None if far is None else far(pooled).double().cpu().numpy()
        presentation = None if far is None else far.presentation
        card, count = self.bundle.card, self.settings.dropout_samples
        drawn = None
        if count > 1 and self.network.dropout_rate > 0:
            drawn = draw(self.network, features, values.to(device), known.to(device), card.calibration, count)
        return Output(
            probabilities.numpy(),
            severity.numpy(),
            encoded.contrast,
            None if maps is None else maps.numpy(),
            novelty,
            seen_by_head(self.network, features).float().cpu().numpy(),
            drawn,
            pooled.float().cpu().numpy(),
            None if presentation is None else presentation(pooled).double().cpu().numpy(),
        )

    def _evidence(self, output: Output, record: ClinicalRecord, slices: Sequence[int]) -> Evidence:
        """Where the prediction comes from: single clinical values, image and record, training cases."""
        card, network = self.bundle.card, self.network
        values, known = prepare_clinical([record], card)
        study = volume_scores(output.scores(), card, slices)
        asked = (network, torch.from_numpy(output.seen[study.run]), values[0], known[0])
        attribution = attribute(*asked, card.calibration, study.probabilities) if known.any() else None
        shares = modality_shares(*asked, card, study.probabilities)
        numbers = [number for share in shares for number in (share.neither, share.image, share.record)]
        if attribution is not None:
            numbers += [*attribution.unknown.tolist(), *attribution.added.ravel().tolist()]
        if not np.isfinite(numbers).all():
            raise self._not_a_number()
        similar: list[SimilarCase] = []
        if self._cases and network.novelty is not None and card.novelty is not None:
            pooled = torch.from_numpy(output.pooled[study.run])
            similar = similar_cases(network.novelty, self._cases, pooled, card.novelty.threshold)
        return Evidence(attribution, shares, similar)

    def _not_a_number(self) -> BundleError:
        return BundleError(f"{self.bundle.folder}: the model gave a result that is not a number. Use another model.")

    def _assemble(
        self,
        image: MedicalImage,
        record: ClinicalRecord,
        prepared: NetworkInput,
        output: Output,
        evidence: Evidence,
        seconds: float,
    ) -> Prediction:
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
        return assemble(
            image, record, card, self.settings, output.scores(), prepared.slices, maps, provenance, evidence
        )

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


class _Steps:
    """Tells of the slices that were looked at, and stops between batches of them; silent for a whole volume."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total
        self._report()

    def before(self) -> None:
        """Of a batch.

        Raises:
            CancelledError: The user wants no more.
        """
        if self._total and self._progress.cancelled():
            raise CancelledError(f"Cancelled after {self._done} of {self._total} slices.")

    def after(self, count: int) -> None:
        """Of a batch of `count` slices."""
        self._done += count
        self._report()

    def _report(self) -> None:
        if self._total:
            self._progress.report("slices", self._done, self._total)


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    found = {"mediscan": __version__, "torch": torch.__version__, "numpy": np.__version__}
    for package in ("monai", "pydicom"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
