"""What JPEG family codestreams say about themselves, read before any decoder sees them.

DICOM headers and the codestreams inside often disagree: on the size, which a decoder then allocates, and on the
colour space, which turns colours into nonsense.
"""

from __future__ import annotations

from collections.abc import Iterator

_STANDALONE = {0x01, *range(0xD0, 0xDA)}  # markers without a segment: TEM, RSTn, SOI, EOI
_START_OF_FRAME = (set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}) | {0xF7}  # F7: JPEG-LS (ISO/IEC 14495-1)
_START_OF_SCAN = 0xDA
_APP0, _APP14 = 0xE0, 0xEE


def codestream_size(frame: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, samples) stated by a JPEG, JPEG-LS or JPEG 2000 codestream, None where it states none."""
    start = frame.find(b"\xff\x4f\xff\x51")  # JPEG 2000: SOC, SIZ (ISO/IEC 15444-1 A.5), also inside JP2 boxes
    if start >= 0:
        right, bottom, left, top = (
            int.from_bytes(frame[start + at : start + at + 4], "big") for at in (8, 12, 16, 20)
        )
        return bottom - top, right - left, int.from_bytes(frame[start + 40 : start + 42], "big")
    for marker, segment in _segments(frame):
        if marker in _START_OF_FRAME and len(segment) >= 6:
            return int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big"), segment[5]
    return None


def jpeg_is_ycbcr(frame: bytes) -> bool | None:
    """Whether a three-component JPEG holds YCbCr and not RGB; None where nothing in it tells.

    Adobe's marker states it, a JFIF file is YCbCr by definition, components may be named R, G and B, and chroma
    at lower resolution makes sense for YCbCr only.
    """
    jfif = False
    for marker, segment in _segments(frame):
        if marker == _APP14 and segment.startswith(b"Adobe") and len(segment) >= 12:
            return segment[11] != 0
        if marker == _APP0 and segment.startswith(b"JFIF"):
            jfif = True
        if marker in _START_OF_FRAME and len(segment) >= 15:
            names, sampling = segment[6:15:3], segment[7:15:3]
            if names in (b"RGB", b"rgb"):
                return False
            return True if jfif or len(set(sampling)) > 1 else None
    return None


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, content) of the segments of a JPEG before its first scan; some writers put bytes before it."""
    at = frame.find(b"\xff\xd8")
    while 0 <= at < len(frame) - 4 and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == _START_OF_SCAN:
            return
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _STANDALONE:
            at += 2
        else:
            length = int.from_bytes(frame[at + 2 : at + 4], "big")
            yield marker, frame[at + 4 : at + 2 + length]
            at += 2 + length
