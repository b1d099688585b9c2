"""How the pixels of a DICOM object are laid out, checked before a byte of them is touched."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from ..errors import ReadError
from .dicom_values import element_number, element_value

_LARGEST_SIDE = 65535  # Rows and Columns are 16-bit (PS3.3 C.7.6.3)
_BITS_ALLOCATED = (1, 8, 16, 32, 64)


@dataclass(frozen=True)
class PixelLayout:
    """The Image Pixel module (PS3.3 C.7.6.3) in numbers.

    Attributes:
        frames: Number of frames.
        rows: Rows of a frame.
        columns: Columns of a frame.
        samples: 1, or 3 for colour.
        bits_allocated: Bits a sample takes.
        bits_stored: Bits a sample uses.
        high_bit: Its most significant bit.
        signed: Two's complement.
        photometric: Photometric Interpretation in upper case.
        planar: Colour by plane.
    """

    frames: int
    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str
    planar: bool

    @property
    def native_bytes(self) -> int:
        """Bytes that the uncompressed pixel value holds."""
        if self.photometric == "YBR_FULL_422":
            return self.frames * self.rows * self.columns * 2 * self.bits_allocated // 8
        return (self.frames * self.rows * self.columns * self.samples * self.bits_allocated + 7) // 8

    @property
    def peak_bytes(self) -> int:
        """Bytes that reading needs at its peak: stored value, decoded array and two float32 copies of the result.

        Colour takes three float32 channels and a luminance on its way.
        """
        color = self.samples > 1 or self.photometric == "PALETTE COLOR"
        return self.elements * (2 * self.samples * max(1, self.bits_allocated // 8) + (24 if color else 8))

    @property
    def elements(self) -> int:
        """Pixels of all frames."""
        return self.frames * self.rows * self.columns

    @property
    def value_range(self) -> tuple[int, int]:
        """Smallest and largest value that the stored bits can hold."""
        if self.signed:
            return -(1 << (self.bits_stored - 1)), (1 << (self.bits_stored - 1)) - 1
        return 0, (1 << self.bits_stored) - 1


def pixel_layout(dataset: Dataset, name: str) -> PixelLayout:
    """Read and check the Image Pixel module.

    Raises:
        ReadError: empty, corrupt or unsupported.
    """

    def whole(keyword: str, default: int | None = None) -> int:
        number = element_number(dataset, keyword)
        if number is None:
            if default is None:
                raise ReadError(name, f"its header has no {keyword}", "Export it again.", code="corrupt")
            return default
        return int(number)

    rows, columns, frames = whole("Rows"), whole("Columns"), whole("NumberOfFrames", 1)
    if rows < 1 or columns < 1 or frames < 1:
        raise ReadError(
            name, f"its header promises {frames} frames of {rows} x {columns} pixels", "Export it again.", code="empty"
        )
    if max(rows, columns) > _LARGEST_SIDE:
        raise ReadError(name, f"its header promises {rows} x {columns} pixels", "Export it again.", code="corrupt")
    samples = whole("SamplesPerPixel", 1)
    photometric = str(element_value(dataset, "PhotometricInterpretation") or "").strip().upper()
    if not photometric:
        photometric = "MONOCHROME2" if samples == 1 else "RGB"
    allocated = whole("BitsAllocated")
    stored = whole("BitsStored", allocated)
    high = whole("HighBit", stored - 1)
    if samples not in (1, 3):
        raise ReadError(name, f"has {samples} samples a pixel", "Convert it to grey or RGB.", code="unsupported")
    if allocated not in _BITS_ALLOCATED:
        raise ReadError(name, f"has {allocated} bits a sample", "Convert it to 8 or 16 bits.", code="unsupported")
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise ReadError(
            name,
            f"its header contradicts itself: {stored} of {allocated} bits stored, highest bit {high}",
            "Export it again.",
            code="corrupt",
        )
    return PixelLayout(
        frames,
        rows,
        columns,
        samples,
        allocated,
        stored,
        high,
        whole("PixelRepresentation", 0) == 1,
        photometric,
        whole("PlanarConfiguration", 0) == 1,
    )
