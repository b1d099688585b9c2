"""Images of a manifest as tensors: prepared once, kept on disk, changed at random each time they are drawn."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import PersistentDataset
from torch.nn import functional
from torch.utils.data import Dataset

from ..errors import DataError, MediScanError, WriteError
from ..network.card import InputSpec
from ..prediction.preprocessing import prepare_slices, prepare_volume
from ..progress import Progress, tracked
from ..study.image import MedicalImage
from ..study.reading import read_image
from .augmentation import Augmentation, kind_of
from .datasets import Study
from .sampling import Draw

CACHE_VERSION = 1
"""Raised whenever preparation changes, so that older files are not used."""


class PreparedImages(PersistentDataset):
    """Prepared images of studies, (1, *spatial) float16 of 0 to 1, kept in a folder of one's own.

    The file name is a hash of the input specification and of path, size and time of the image. Files are read as
    plain tensors and never executed.

    Args:
        studies: Studies.
        spec: Input of the network; its mean and deviation are left to `TrainingImages` and `standardized`.
        folder: Where prepared images are kept.
    """

    def __init__(self, studies: Sequence[Study], spec: InputSpec, folder: Path) -> None:
        preparation = spec.model_dump(include={"size", "percentiles", "windows"})
        common = {"version": CACHE_VERSION, "input": preparation}
        items = [{"image": str(study.image), "row": study.row, **common} for study in studies]
        super().__init__(items, [], folder, hash_func=_identity, weights_only=True)
        self._spec = spec
        self._folder = folder

    def _pre_transform(self, item_transformed: Mapping[str, Any]) -> torch.Tensor:
        return _prepare(item_transformed, self._spec)  # as a transform, its errors would lose their words

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> torch.Tensor:
        try:
            image: torch.Tensor = super()._cachecheck(item_transformed)
        except (RuntimeError, EOFError):  # a file that a kill left half-written, which MONAI takes for good
            self._file(item_transformed).unlink(missing_ok=True)
            image = super()._cachecheck(item_transformed)
        return image

    @property
    def missing(self) -> int:
        """How many images are not prepared yet."""
        return sum(not self._file(item).is_file() for item in self.data)

    def _file(self, item: Mapping[str, Any]) -> Path:
        return self._folder / f"{_identity(item).decode()}.pt"

    def prepare(self, progress: Progress, stage: str) -> None:
        """Prepare all images, so that a bad one is found before training starts.

        Raises:
            DataError: An image cannot be read or used; the message names its row.
            WriteError: The folder cannot be written.
        """
        for index in tracked(range(len(self)), stage, len(self), progress):
            try:
                self[index]
            except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
                raise WriteError(
                    f"{self._folder}: the prepared image of row {self.data[index]['row']} cannot be stored "
                    f"({error}). Free some space or name another folder. What was stored before is kept."
                ) from error


class TrainingImages(Dataset[dict[str, Any]]):
    """Augmented, standardized images by `Draw`: {"image", "index", "image_shown", "marks"}.

    Args:
        images: Prepared images of the same studies.
        studies: Studies.
        spec: Input of the network.
        strength: Of the augmentation.
        marks: By position of a study, what readers marked on it: (1, *spatial) of 0 and 1 on the network's input.
        stride: Input pixels from one cell of the feature map to the next.
    """

    def __init__(
        self,
        images: PreparedImages,
        studies: Sequence[Study],
        spec: InputSpec,
        strength: float,
        *,
        marks: Mapping[int, torch.Tensor] | None = None,
        stride: int,
    ) -> None:
        self._images, self._spec = images, spec
        self._marks = marks or {}
        self._cells = tuple(math.ceil(length / stride) for length in spec.size)
        self._kinds = [kind_of(study.modality, study.body_part) for study in studies]
        self._augmentations = {kind: Augmentation(kind, spec.size, strength) for kind in set(self._kinds)}

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        """The image of a draw, (1, *spatial) float32, and by cell which share of it is marked, (*cells)."""
        image = self._images[draw.study].float()
        marks = self._marks.get(draw.study)
        layers = image if marks is None else torch.cat([image, marks])
        changed = self._augmentations[self._kinds[draw.study]](layers, draw.seed)
        return {
            "image": standardized(changed[:1], self._spec),
            "index": draw.study,
            "image_shown": draw.image_shown,
            "marks": torch.zeros(self._cells) if marks is None else self._by_cell(changed[1:]),
        }

    def _by_cell(self, marks: torch.Tensor) -> torch.Tensor:
        rows, columns = self._cells
        return functional.adaptive_avg_pool2d(marks, (rows, columns))[0]


class StandardizedImages(Dataset[dict[str, Any]]):
    """Unchanged images as the predictor sees them: {"image", "index"}.

    Args:
        images: Prepared images.
        spec: Input of the network.
        indices: Which of them, in which order; None for all.
    """

    def __init__(self, images: PreparedImages, spec: InputSpec, indices: Sequence[int] | None = None) -> None:
        self._images, self._spec = images, spec
        self._indices = range(len(images)) if indices is None else indices

    def __len__(self) -> int:
        """How many."""
        return len(self._indices)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Image (1, *spatial) float32 and its index among the studies."""
        index = self._indices[position]
        return {"image": standardized(self._images[index].float(), self._spec), "index": index}


def standardized(image: torch.Tensor, spec: InputSpec) -> torch.Tensor:
    """Pixels of 0 to 1 in the network's own units."""
    return (image - spec.mean) / spec.std


def _prepare(item: Mapping[str, Any], spec: InputSpec) -> torch.Tensor:
    """Pixels as the predictor prepares them, but float16 and 0 to 1."""
    where = f"{item['image']} (row {item['row']} of the manifest)"
    try:
        image = read_image(item["image"])
    except MediScanError as error:
        raise DataError(f"Row {item['row']} of the manifest: {error}") from error
    unit = _prepared(image, spec, where) * spec.std + spec.mean
    if not bool(torch.isfinite(unit).all()):
        raise DataError(f"{where}: the prepared image is not finite. Mend or remove it.")
    return unit.clamp(0, 1).to(torch.float16)


def _prepared(image: MedicalImage, spec: InputSpec, where: str) -> torch.Tensor:
    if len(spec.size) == 3:
        if image.shape[0] == 1:
            raise DataError(f"{where}: is a single slice; a 3D network learns from volumes. Set spatial_dims: 2.")
        return prepare_volume(image, spec).tensor[0]
    if image.shape[0] > 1:
        raise DataError(
            f"{where}: has {image.shape[0]} slices; a 2D network learns from single images. Set spatial_dims: 3, or "
            "name the slices that show the finding."
        )
    return prepare_slices(image, spec, (0,)).tensor[0]


def _identity(item: Mapping[str, Any]) -> bytes:
    """Hash of what is prepared and how; the row only serves messages."""
    path = Path(item["image"])
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    text = json.dumps([stats, item["version"], item["input"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest().encode()
