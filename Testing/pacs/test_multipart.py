"""The one part of an answer, however it is cut."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MediScanLib.pacs.multipart import boundary_of, write_part
from MediScanLib.pacs.problems import PacsError

BOUNDARY = b"b0-x"
CONTENT = st.lists(
    st.one_of(st.binary(max_size=30), st.sampled_from([b"\r\n", b"--", b"\r\n--", b"\r\n--b0", b"--b0-x", b"\r"]))
).map(b"".join)


def body(content: bytes) -> bytes:
    return b"--b0-x\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--b0-x--\r\n"


def chunks(data: bytes, size: int):
    return (data[start : start + size] for start in range(0, len(data), size))


def parse(data: bytes, size: int, most: float = 1e9) -> bytes:
    stream = io.BytesIO()
    write_part(chunks(data, size), BOUNDARY, stream, most)
    return stream.getvalue()


@given(content=CONTENT.filter(lambda content: b"\r\n--b0-x" not in content + b"\r\n"), size=st.integers(1, 50))
def test_any_content_comes_through_in_any_pieces(content, size):
    assert parse(body(content), size) == content
    assert parse(b"a preamble that is to be ignored\r\n" + body(content), size) == content


@given(content=st.binary(max_size=50), size=st.integers(1, 20), data=st.data())
def test_an_answer_that_is_cut_off_is_no_object(content, size, data):
    whole = body(content)
    with pytest.raises(PacsError, match="cut off"):
        parse(whole[: data.draw(st.integers(0, len(whole) - len(b"\r\n--b0-x--\r\n") - 1))], size)


def test_too_much_is_not_written():
    stream = io.BytesIO()
    with pytest.raises(PacsError, match=r"limits\.instance_mb"):
        write_part(chunks(body(b"x" * 100_000), 1000), BOUNDARY, stream, 5000)
    assert len(stream.getvalue()) <= 5000


def test_a_head_without_end_is_refused():
    with pytest.raises(PacsError):
        parse(b"--b0-x\r\nX: " + b"y" * 200_000, 1000)


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ('multipart/related; type="application/dicom"; boundary=b0-x', b"b0-x"),
        ('multipart/related; boundary="b 0"', b"b 0"),
        ("application/dicom", None),
        ("multipart/related", None),
        ("", None),
    ],
)
def test_the_boundary_of_a_content_type(header, boundary):
    assert boundary_of(header) == boundary
