"""Finds images that stand several times in a data set: the same file, the same pixels, or nearly the same picture.

Nearly the same is decided in two steps. A perceptual hash, the signs of the 63 lowest DCT coefficients against their
median (Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010), finds candidates fast.
Radiographs of one projection are so alike that this alone accuses many innocent pairs, so a candidate must also
agree in its details: the correlation of 64 x 64 thumbnails without their low frequencies. Measured on frontal chest
radiographs of different patients the correlation stays below 0.72. Copies that were resized, recompressed or
re-windowed, also when flipped left to right, and many neighboring slices of one CT lie above the limit. Copies that
were cropped, moved by more than a hundredth of their side or turned by more than a few degrees are mostly not found.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..errors import ReadError
from ..progress import Progress, SilentProgress, tracked
from ..study.reading import read_image

HASH_DISTANCE = 10
"""Largest number of differing bits, out of 63, of a candidate pair."""

DETAIL_CORRELATION = 0.74
"""Smallest correlation of details of a pair that counts as nearly the same."""

_SIDE = 64
_BLUR = 3.0  # pixels of the thumbnail: removes the anatomy that all chests share
_BLOCK = 2048

Kind = Literal["file", "pixels", "near"]


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is kept of an image to compare it with others.

    Attributes:
        file: Digest of the bytes of the file, or of all files of the folder.
        pixels: Digest of shape and decoded pixels.
        bits: (63,) bool, the perceptual hash.
        mirrored_bits: (63,) bool, the perceptual hash of the image flipped left to right.
        details: (64 * 64,) float16 of unit length, all zero for an image without any detail.
        low: Smallest pixel value.
        high: Largest pixel value.
        warnings: What reading the image gave cause to say.
    """

    file: str
    pixels: str
    bits: npt.NDArray[np.bool_]
    mirrored_bits: npt.NDArray[np.bool_]
    details: npt.NDArray[np.float16]
    low: float
    high: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """Two positions in a sequence of fingerprints whose images are the same.

    Attributes:
        first: The smaller position.
        second: The larger position.
        kind: "file" for the same bytes, "pixels" for the same pixels in another file, "near" for nearly the same.
        similarity: Correlation of details, 1 for the same pixels.
    """

    first: int
    second: int
    kind: Kind
    similarity: float


def fingerprint(path: Path) -> Fingerprint:
    """Fingerprint of a file or series folder; of a volume its middle slice is compared.

    Raises:
        ReadError: The image cannot be read.
    """
    from scipy.fft import dctn
    from scipy.ndimage import gaussian_filter

    image = read_image(path)
    pixels = image.pixels
    digest = blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    middle = Image.fromarray(np.ascontiguousarray(pixels[len(pixels) // 2]))
    small = np.asarray(middle.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
    coarse = small.reshape(_SIDE // 2, 2, _SIDE // 2, 2).mean((1, 3))
    lowest = dctn(coarse, norm="ortho")[:8, :8]
    mirrored = lowest * (1 - 2 * (np.arange(8) % 2))  # a flip turns the sign of the odd cosines
    details = small - gaussian_filter(small, _BLUR)
    details -= details.mean()
    norm = float(np.linalg.norm(details))
    flat = norm <= 1e-6 * max(1.0, float(np.abs(small).max()))
    return Fingerprint(
        file=_file_digest(path),
        pixels=digest.hexdigest(),
        bits=_above_median(lowest),
        mirrored_bits=_above_median(mirrored),
        details=(np.zeros_like(details) if flat else details / norm).ravel().astype(np.float16),
        low=float(pixels.min()),
        high=float(pixels.max()),
        warnings=image.warnings,
    )


def fingerprints(
    paths: Sequence[Path], progress: Progress | None = None, workers: int | None = None
) -> list[Fingerprint | ReadError]:
    """Fingerprints of many images in parallel; the error in place of an image that cannot be read.

    Raises:
        CancelledError: The user cancelled.
    """

    def attempt(path: Path) -> Fingerprint | ReadError:
        try:
            return fingerprint(path)
        except ReadError as error:
            return error

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:  # decoding and hashing release the interpreter lock
        try:
            return list(tracked(pool.map(attempt, paths), "images", len(paths), progress or SilentProgress()))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def same_images(prints: Sequence[Fingerprint]) -> list[Pair]:
    """Pairs of images that are the same or nearly so.

    Of n images with the same pixels only the n - 1 pairs with the first of them are named, and only the first one is
    compared with the rest of the set.
    """
    first: dict[str, int] = {}
    pairs = []
    for position, print_ in enumerate(prints):
        original = first.setdefault(print_.pixels, position)
        if original != position:
            kind: Kind = "file" if prints[original].file == print_.file else "pixels"
            pairs.append(Pair(original, position, kind, 1.0))
    pairs += _near(prints, sorted(first.values()))
    return sorted(pairs, key=lambda pair: (pair.first, pair.second))


def _near(prints: Sequence[Fingerprint], positions: Sequence[int]) -> Iterator[Pair]:
    """Compare blocks of hashes by a matrix product of their signs: distance = (63 - product) / 2."""
    kept = [position for position in positions if prints[position].details.any()]
    if not kept:
        return
    signs = np.stack([prints[position].bits for position in kept]).astype(np.float32) * 2 - 1
    mirrored = np.stack([prints[position].mirrored_bits for position in kept]).astype(np.float32) * 2 - 1
    for start in range(0, len(kept), _BLOCK):
        block = signs[start : start + _BLOCK]
        close = np.maximum(block @ signs[start:].T, block @ mirrored[start:].T) >= signs.shape[1] - 2 * HASH_DISTANCE
        rows, columns = np.nonzero(close)
        for row, column in zip(rows[columns > rows], columns[columns > rows], strict=True):
            first, second = kept[start + row], kept[start + column]
            similarity = _similarity(prints[first].details, prints[second].details)
            if similarity >= DETAIL_CORRELATION:
                yield Pair(first, second, "near", min(similarity, 1.0))


def _similarity(one: npt.NDArray[np.float16], other: npt.NDArray[np.float16]) -> float:
    """Correlation of details, the second image as it is or flipped, whichever fits better."""
    flipped = other.reshape(_SIDE, _SIDE)[:, ::-1].ravel()
    return float(np.max(np.stack([other, flipped]).astype(np.float32) @ one.astype(np.float32)))


def _above_median(lowest: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    values = lowest.ravel()[1:]  # without the mean
    return np.asarray(values > np.median(values))


def _file_digest(path: Path) -> str:
    digest = blake2b(digest_size=16)
    files = sorted(entry for entry in path.iterdir() if entry.is_file()) if path.is_dir() else [path]
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
