"""Each way in which a file can be wrong or hostile, and the error that says so."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import pickle
import shutil
import signal
import socket
import struct
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from MediScanLib.errors import ReadError
from MediScanLib.study import decoding, guards
from MediScanLib.study.finding import find_images
from MediScanLib.study.reading import read_image

PIXELS = np.arange(32 * 48, dtype=np.uint16).reshape(32, 48)
MIB = 1024**2


def refused(source, code: str, **options) -> ReadError:
    with pytest.raises(ReadError) as caught:
        read_image(source, **options)
    error = caught.value
    assert error.code == code, str(error)
    name = options.get("name") or ("bytes" if isinstance(source, bytes) else str(source))
    assert name in str(error)
    assert error.problem and error.remedy.endswith(".")
    for secret in ("Doe", "SECRET"):
        assert secret not in str(error)
    return error


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def j2k(pixels: np.ndarray) -> bytes:
    return saved(Image.fromarray(pixels), "JPEG2000", no_jp2=True)


def compressed(make_dicom, **elements) -> bytes:
    return make_dicom(PIXELS, [j2k(PIXELS)], TransferSyntaxUID=uid.JPEG2000Lossless, **elements)


# paths


def test_nothing_there(tmp_path):
    refused(tmp_path / "missing.dcm", "not_found")
    refused(tmp_path / "missing" / "deeper.dcm", "not_found")
    (tmp_path / "file").write_bytes(b"x")
    refused(tmp_path / "file" / "below.dcm", "not_found")
    refused("a\0b", "not_found")


def test_link_that_leads_to_itself(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    refused(tmp_path / "a", "symlink_loop")


def test_folder_with_a_link_to_itself(make_series, tmp_path):
    volume = np.zeros((3, 4, 5))
    make_series(tmp_path, volume, np.array([(0, 0, z) for z in (0.0, 1.0, 2.0)]))
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert read_image(tmp_path).shape == (3, 4, 5)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX permissions")
def test_unreadable(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(saved(Image.new("L", (4, 4)), "PNG"))
    path.chmod(0)
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    is_root = os.geteuid() == 0
    if is_root:  # root may read everything
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
        os.seteuid(65534)
    try:
        refused(path, "permission_denied")
        refused(closed, "permission_denied")
    finally:
        if is_root:
            os.seteuid(0)
        closed.chmod(0o755)


def test_pipe_socket_and_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not_an_image")
    refused("/dev/zero", "not_an_image")
    with socket.socket(socket.AF_UNIX) as listener:
        place = Path(os.path.relpath(tmp_path / "s"))  # socket paths must be short
        os_path = str(place) if len(str(place)) < 100 else None
        if os_path:
            listener.bind(os_path)
            refused(place, "not_an_image")


@pytest.mark.parametrize("name", ["Röntgen Thorax.dcm", "胸部X線.dcm", "صدر.dcm", "🫁.dcm"])
@pytest.mark.parametrize("packed", [False, True])
def test_names_in_any_script(make_dicom, tmp_path, name, packed):
    folder = tmp_path / "Müller, 山田"
    folder.mkdir()
    path = folder / name
    path.write_bytes(compressed(make_dicom) if packed else make_dicom(PIXELS))
    np.testing.assert_array_equal(read_image(path).pixels[0], PIXELS)
    volume = folder / f"{name}.nii"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(PIXELS[None]), str(volume))
    np.testing.assert_array_equal(read_image(volume).pixels[0], PIXELS)


def test_empty(tmp_path):
    (tmp_path / "empty.dcm").touch()
    refused(tmp_path / "empty.dcm", "empty")
    refused(b"", "empty")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "empty")
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    error = refused(tmp_path / "folder", "empty")
    assert "1 files of other kinds" in str(error)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"hello, this is a letter to the radiologist" * 20, "not_an_image"),
        (bytes(2000), "not_an_image"),
        (b"x", "not_an_image"),
        (b"GIF89a" + bytes(100), "unsupported"),
        (b"PK\x03\x04" + bytes(100), "unsupported"),
        (b"%PDF-1.7", "unsupported"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "corrupt"),
        (b"NRRD0004\n\n", "corrupt"),
    ],
)
def test_no_image(content, code):
    refused(content, code, name="letter.dcm")


def test_errors_cross_process_borders():
    error = refused(b"x", "not_an_image", name="a.png")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.code) == (str(error), error.code)


# DICOM headers


def test_dicomdir(make_dicom):
    error = refused(make_dicom(None, SOPClassUID=uid.MediaStorageDirectoryStorage), "unsupported")
    assert "folder" in error.remedy


def test_no_pixel_data(make_dicom):
    error = refused(make_dicom(None, Modality="SR", SOPClassUID=uid.ComprehensiveSRStorage), "no_pixel_data")
    assert "SR" in str(error)


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9, 0.999])
def test_truncated_dicom(make_dicom, part):
    content = make_dicom(PIXELS)
    refused(content[: int(len(content) * part)], "truncated")


def test_truncated_compressed_dicom(make_dicom):
    content = compressed(make_dicom)
    refused(content[: len(content) - 100], "truncated")


def test_only_the_end_mark_is_missing(make_dicom):
    np.testing.assert_array_equal(read_image(compressed(make_dicom)[:-8]).pixels[0], PIXELS)


@pytest.mark.parametrize("elements", [{"Rows": 0}, {"Columns": 0}, {"NumberOfFrames": 0}])
def test_zero_size(make_dicom, elements):
    refused(make_dicom(PIXELS, **elements), "empty")


def test_header_promises_more_than_there_is(make_dicom):
    refused(make_dicom(PIXELS, Rows=33), "size_mismatch")
    refused(make_dicom(PIXELS, NumberOfFrames=2), "size_mismatch")
    refused(compressed(make_dicom, Rows=33), "size_mismatch")
    refused(compressed(make_dicom, NumberOfFrames=2), "truncated")


def test_bare_header_of_65535_x_65535(make_dicom):
    refused(make_dicom(PIXELS, Rows=65535, Columns=65535), "too_large")
    refused(make_dicom(PIXELS, NumberOfFrames=2**31 - 1), "too_large")
    refused(make_dicom(PIXELS, NumberOfFrames="999999999999"), "too_large")


def test_header_of_100000_x_100000(make_dataset):
    ds = make_dataset(PIXELS)
    for keyword in ("Rows", "Columns"):
        del ds[keyword]
        ds.add_new(pydicom.tag.Tag(keyword), "UL", 100000)  # the standard's US cannot hold it
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    refused(stream.getvalue(), "corrupt")


@pytest.mark.parametrize(
    "elements",
    [
        {"BitsAllocated": 12},
        {"SamplesPerPixel": 4},
        {"PhotometricInterpretation": "HSV"},
    ],
)
def test_unsupported_layouts(make_dicom, elements):
    refused(make_dicom(PIXELS, **elements), "unsupported")


@pytest.mark.parametrize("elements", [{"BitsStored": 17}, {"BitsStored": 12, "HighBit": 5}, {"BitsAllocated": None}])
def test_contradicting_layouts(make_dicom, elements):
    refused(make_dicom(PIXELS, **elements), "corrupt")


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.102", "1.2.840.10008.1.2.4.201", "1.2.840.99999.1"])
def test_compression_that_is_not_handled(make_dicom, syntax):
    content = compressed(make_dicom).replace(b"1.2.840.10008.1.2.4.90", syntax.encode().ljust(22, b"\0"))
    short = uid.JPEG2000Lossless.encode()
    assert len(short) == 22
    if len(syntax) > 22:
        old = struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + short
        new = struct.pack("<HH2sH", 2, 0x10, b"UI", 24) + syntax.encode().ljust(24, b"\0")
        content = compressed(make_dicom)
        assert old in content
        content = content.replace(old, new)
    refused(content, "unsupported")


def test_400_nested_sequences(make_dataset):
    inner = Dataset()
    inner.PatientID = "x"
    for _ in range(400):
        outer = Dataset()
        outer.ReferencedSeriesSequence = Sequence([inner])
        outer["ReferencedSeriesSequence"].is_undefined_length = True
        inner.is_undefined_length_sequence_item = True
        inner = outer
    ds = make_dataset(PIXELS)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, ds, enforce_file_format=True)
    content = stream.getvalue()
    # pydicom's own writer recurses: the nest is written by hand
    opening = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    at = content.index(b"\x10\x00\x10\x00PN")
    refused(content[:at] + opening * 400 + closing * 400 + content[at:], "too_deep")
    shallow = read_image(content[:at] + opening * 5 + closing * 5 + content[at:])
    np.testing.assert_array_equal(shallow.pixels[0], PIXELS)


# compressed bombs


def deflated(content: bytes) -> bytes:
    """An explicit little endian file as deflated explicit little endian."""
    old = struct.pack("<HH2sH", 2, 0x10, b"UI", 20) + b"1.2.840.10008.1.2.1\0"
    assert old in content
    new = struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + b"1.2.840.10008.1.2.1.99"
    length = struct.unpack("<I", content[140:144])[0]
    body = 144 + length
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    meta = content[:140] + struct.pack("<I", length + 2) + content[144:body].replace(old, new)
    return meta + squeeze.compress(content[body:]) + squeeze.flush()


def test_deflated_is_read(make_dicom):
    content = deflated(make_dicom(PIXELS, Modality="CT", RescaleSlope=1, RescaleIntercept=-100))
    np.testing.assert_array_equal(read_image(content).pixels[0], PIXELS.astype(float) - 100)
    refused(content[:-200], "truncated")
    refused(content[:400] + b"\xff" * 300 + content[700:], "corrupt")


def peak_bytes(action) -> int:
    import tracemalloc

    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("where", ["before the pixels", "in the pixels", "after the pixels"])
def test_deflated_bomb(make_dicom, where):
    hole = bytes(400 * MIB)
    content = make_dicom(PIXELS)
    at = content.index(b"\xe0\x7f\x10\x00OW")
    if where == "before the pixels":
        element = struct.pack("<HH2sHI", 0x0029, 0x1010, b"OB", 0, len(hole)) + hole
        bomb = deflated(content[:at] + element + content[at:])
        peak = peak_bytes(lambda: refused(bomb, "too_large"))
    elif where == "in the pixels":
        bomb = deflated(content[: at + 8] + struct.pack("<I", len(hole)) + hole)
        peak = peak_bytes(lambda: read_image(bomb))
    else:
        bomb = deflated(content + struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, len(hole)) + hole)
        peak = peak_bytes(lambda: read_image(bomb))
    assert len(bomb) < MIB
    assert peak < 200 * MIB


def test_compressed_size_that_the_header_hides(make_dicom):
    small, huge = j2k(PIXELS), j2k(np.zeros((4000, 4000), np.uint16))
    refused(make_dicom(PIXELS, [huge], TransferSyntaxUID=uid.JPEG2000Lossless), "size_mismatch")
    # a codestream that says 30000 x 30000 at both places must not be decoded beyond the limit
    liar = small.replace(struct.pack(">II", 48, 32), struct.pack(">II", 30000, 30000))
    assert liar != small
    content = make_dicom(PIXELS, [liar], TransferSyntaxUID=uid.JPEG2000Lossless, Rows=30000, Columns=30000)
    refused(content, "too_large")


def test_png_bomb():
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    refused(png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")), "too_large")


def test_png_within_pillows_limit_but_beyond_ours():
    content = saved(Image.new("L", (8000, 8000)), "PNG")
    assert len(content) < MIB
    refused(content, "too_large", memory_limit_bytes=100 * MIB)


def test_tiff_bomb():
    content = saved(Image.new("L", (64, 64)), "TIFF", compression="tiff_adobe_deflate")
    liar = bytearray(content)
    (at,) = struct.unpack_from("<I", content, 4)
    for index in range(struct.unpack_from("<H", content, at)[0]):
        entry = at + 2 + 12 * index
        if struct.unpack_from("<H", content, entry)[0] in (256, 257):
            struct.pack_into("<HII", liar, entry + 2, 4, 1, 100_000)
    refused(bytes(liar), "too_large")


def test_tiff_of_many_pages():
    page = Image.new("1", (1000, 1000))
    content = saved(page, "TIFF", save_all=True, append_images=[page] * 99, compression="group4")
    assert len(content) < MIB
    refused(content, "too_large", memory_limit_bytes=200 * MIB)


def nifti(sizes: tuple[int, ...], data: bytes, code: int = 4, bits: int = 16) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, *([len(sizes), *sizes] + [1] * 8)[:8])
    struct.pack_into("<hh", header, 70, code, bits)
    struct.pack_into("<8f", header, 76, *[1.0] * 8)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header) + data


def test_nifti_bombs():
    assert read_image(nifti((3, 4, 5), bytes(120))).shape == (5, 4, 3)
    refused(nifti((30000, 30000, 30000), b""), "too_large")
    refused(gzip.compress(nifti((30000, 30000, 30000), bytes(100))), "too_large")
    refused(nifti((3, 4, 5), bytes(119)), "truncated")
    refused(gzip.compress(nifti((3, 4, 5), bytes(119))), "truncated")
    noise = np.random.default_rng(0).bytes(4000)
    refused(gzip.compress(nifti((10, 20, 10), noise))[:-200], "truncated")
    refused(gzip.compress(nifti((3, 4, 5), bytes(120)))[:30], "truncated")
    refused(nifti((3, 0, 5), bytes(120)), "empty")
    refused(nifti((3, 4, 5), bytes(480), code=32), "unsupported")
    refused(struct.pack("<i4s", 540, b"n+2\0") + bytes(600), "unsupported")


def test_pixels_far_inside_a_gzip_are_not_unpacked_to():
    content = bytearray(nifti((3, 4, 5), bytes(400 * MIB)))
    struct.pack_into("<f", content, 108, 300 * MIB)
    bomb = gzip.compress(content)
    assert len(bomb) < MIB
    assert peak_bytes(lambda: refused(bomb, "corrupt")) < 50 * MIB


def test_what_follows_in_a_gzip_is_not_unpacked():
    bomb = gzip.compress(nifti((3, 4, 5), bytes(400 * MIB)))
    assert len(bomb) < MIB
    assert peak_bytes(lambda: read_image(bomb)) < 50 * MIB


def test_nrrd_and_meta_bombs():
    nrrd = b"NRRD0004\ntype: short\ndimension: 3\nsizes: %s\nencoding: %s\nendian: little\n\n"
    refused(nrrd % (b"30000 30000 30000", b"raw"), "too_large")
    refused(nrrd % (b"3 4 5", b"raw") + bytes(119), "truncated")
    refused(nrrd % (b"3 4 5", b"gzip") + gzip.compress(bytes(119)), "truncated")
    refused(nrrd % (b"3 0 5", b"raw"), "empty")
    refused(nrrd % (b"3 4 5", b"bzip2") + bytes(120), "unsupported")
    meta = b"ObjectType = Image\nNDims = 3\nDimSize = %s\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    assert read_image(meta % b"3 4 5" + bytes(120)).shape == (5, 4, 3)
    refused(meta % b"30000 30000 30000", "too_large")
    refused(meta % b"3 4 5" + bytes(119), "truncated")


def test_limit_of_the_caller_holds(make_dicom, tmp_path):
    pixels = np.zeros((20, 512, 512), np.uint16)
    refused(make_dicom(pixels), "too_large", memory_limit_bytes=10 * MIB)
    path = tmp_path / "volume.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(pixels), str(path))
    refused(path, "too_large", memory_limit_bytes=10 * MIB)
    assert read_image(path, memory_limit_bytes=200 * MIB).shape == (20, 512, 512)


def table(entries: int) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [entries, 0, 16])
    item.add_new("LUTData", "OW", np.arange(entries, dtype="<u2").tobytes())
    return Sequence([item])


@pytest.mark.parametrize(
    ("pixels", "elements"),
    [
        (np.zeros((2048, 2048), np.uint16), {}),
        (np.zeros((2048, 2048), np.uint16), {"VOILUTSequence": table(256)}),
        (np.zeros((2048, 2048), np.uint16), {"VOILUTFunction": "SIGMOID", "WindowCenter": 2, "WindowWidth": 9}),
        (np.full((2048, 2048, 3), (1, 2, 3), np.uint8), {}),
        (
            np.zeros((2048, 2048), np.uint8),
            {
                "PhotometricInterpretation": "PALETTE COLOR",
                **{f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")},
                **{f"{name}PaletteColorLookupTableData": bytes(512) for name in ("Red", "Green", "Blue")},
            },
        ),
    ],
    ids=["grey", "table", "sigmoid", "color", "palette"],
)
def test_what_is_allowed_is_not_exceeded(make_dicom, pixels, elements):
    content = make_dicom(pixels, Modality="DX", **elements)
    needed = peak_bytes(lambda: read_image(content))
    refused(content, "too_large", memory_limit_bytes=int(0.9 * needed))


def test_series_counts_all_of_its_slices(make_series, tmp_path):
    make_series(tmp_path, np.zeros((10, 256, 256)), np.array([(0, 0, z) for z in range(10)], float))
    refused(tmp_path, "too_large", memory_limit_bytes=4 * MIB)


def test_no_more_than_the_machine_has(monkeypatch, make_dicom):
    monkeypatch.setattr(guards, "available_memory", lambda: 1000)
    assert "free on this machine" in str(refused(make_dicom(PIXELS), "too_large"))


# hostile codestreams and the child process


def test_nonsense_between_fragments(make_dicom, make_dataset):
    content = compressed(make_dicom)
    at = content.index(b"\xfe\xff\x00\xe0", content.index(b"\xe0\x7f\x10\x00OB"))
    refused(content[:at] + b"\x12\x34\x56\x78" + content[at + 4 :], "corrupt")
    refused(content[:at] + b"\xfe\xff\x00\xe0\xff\xff\xff\x7f" + content[at + 8 :], "truncated")
    empty = make_dataset(PIXELS, TransferSyntaxUID=uid.JPEG2000Lossless)
    empty.PixelData = encapsulate([b"\0\0"])
    empty["PixelData"].VR = "OB"
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, empty, enforce_file_format=True)
    refused(stream.getvalue(), "corrupt")


def test_crash_of_the_decoder_is_an_error_and_the_next_file_is_read(make_dicom, monkeypatch):
    content = compressed(make_dicom)
    read_image(content)
    decoder = decoding.shared_decoder()
    process = decoder._process
    assert process is not None
    original = decoding.write_blocks

    def write_and_kill(stream, *blocks):
        os.kill(process.pid, signal.SIGSTOP)  # it must not answer before it dies
        original(stream, *blocks)
        os.kill(process.pid, signal.SIGKILL)

    monkeypatch.setattr(decoding, "write_blocks", write_and_kill)
    assert "crash" in str(refused(content, "corrupt"))
    monkeypatch.undo()
    np.testing.assert_array_equal(read_image(content).pixels[0], PIXELS)
    assert decoder._process is not process


def test_decoder_that_takes_too_long_is_stopped(make_dicom, monkeypatch):
    slow = decoding.DecoderProcess(time_limit=0.0)
    monkeypatch.setattr("MediScanLib.study.dicom_pixels.shared_decoder", lambda: slow)
    assert "longer than" in str(refused(compressed(make_dicom), "corrupt"))
    assert slow._process is None


def test_decoder_imports_nothing_from_the_current_folder(make_dicom, monkeypatch, tmp_path):
    for module in ("SimpleITK", "json", "MediScanLib"):
        (tmp_path / f"{module}.py").write_text("open(__file__ + '.ran', 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in an interactive session
    fresh = decoding.DecoderProcess()
    monkeypatch.setattr("MediScanLib.study.dicom_pixels.shared_decoder", lambda: fresh)
    try:
        np.testing.assert_array_equal(read_image(compressed(make_dicom)).pixels[0], PIXELS)
    finally:
        fresh.close()
    assert not list(tmp_path.glob("*.ran"))


def test_decoder_leaves_no_folder_behind(make_dicom, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    fresh = decoding.DecoderProcess()
    monkeypatch.setattr("MediScanLib.study.dicom_pixels.shared_decoder", lambda: fresh)
    read_image(compressed(make_dicom))
    assert list(tmp_path.iterdir())
    fresh.close()
    assert not list(tmp_path.iterdir())
    read_image(compressed(make_dicom))
    process = fresh._process
    assert process is not None and process.stdin is not None
    process.stdin.close()  # as where the parent is killed
    process.wait(timeout=60)
    assert not list(tmp_path.iterdir())


def test_decoder_that_cannot_be_started(make_dicom, monkeypatch):
    def nowhere() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(decoding, "interpreter", nowhere)
    idle = decoding.DecoderProcess()
    monkeypatch.setattr("MediScanLib.study.dicom_pixels.shared_decoder", lambda: idle)
    refused(compressed(make_dicom), "unsupported")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory limits of processes need Linux")
def test_decoder_has_a_memory_limit(make_dicom):
    decoder = decoding.DecoderProcess()
    try:
        huge = make_dicom(
            np.zeros((1, 1), np.uint8),
            [j2k(np.zeros((6000, 6000), np.uint16))],
            TransferSyntaxUID=uid.JPEG2000Lossless,
            Rows=6000,
            Columns=6000,
            BitsAllocated=16,
            BitsStored=16,
            HighBit=15,
        )
        with pytest.raises(ReadError) as caught:
            decoder.decode(huge, "huge.dcm", pixel_bytes=1)
        assert caught.value.code == "too_large"
        assert decoder.decode(huge, "huge.dcm", pixel_bytes=6000 * 6000 * 2).shape == (1, 6000, 6000)
    finally:
        decoder.close()


# anything at all


def samples() -> dict[str, bytes]:
    from_array = Image.fromarray((PIXELS % 256).astype(np.uint8))
    return {
        "png": saved(from_array, "PNG"),
        "jpeg": saved(from_array, "JPEG"),
        "tiff": saved(from_array, "TIFF", compression="tiff_lzw"),
        "nifti": nifti((6, 5, 4), np.arange(120, dtype="<i2").tobytes()),
        "nifti.gz": gzip.compress(nifti((6, 5, 4), np.arange(120, dtype="<i2").tobytes())),
        "nrrd": b"NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nencoding: raw\nendian: little\n"
        b"space: left-posterior-superior\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
        + bytes(240),
        "mha": b"ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementSpacing = 1 1 2\nElementType = MET_SHORT\n"
        b"ElementDataFile = LOCAL\n" + bytes(240),
    }


KINDS = ["png", "jpeg", "tiff", "nifti", "nifti.gz", "nrrd", "mha", "dicom", "dicom j2k", "dicom deflated"]


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    kind=st.sampled_from(KINDS),
    cut=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=12),
    truncate=st.booleans(),
)
@example(kind="dicom", cut=0.5, flips=[], truncate=True)
def test_damage_never_raises_anything_but_a_read_error(make_dicom, kind, cut, flips, truncate):
    if kind.startswith("dicom"):
        content = compressed(make_dicom) if kind == "dicom j2k" else make_dicom(PIXELS, Modality="CT")
        content = deflated(content) if kind == "dicom deflated" else content
    else:
        content = samples()[kind]
    damaged = bytearray(content)
    for place, value in flips:
        damaged[int(place * len(damaged))] = value
    if truncate:
        damaged = damaged[: int(cut * len(damaged))]
    try:
        image = read_image(bytes(damaged), memory_limit_bytes=256 * MIB)
    except ReadError as error:
        assert error.code in (*ReadError.CODES, "unreadable")
    else:
        assert np.isfinite(image.pixels).all()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=600), st.sampled_from([b"", b"NRRD0005\n", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8\xff"]))
def test_noise_never_raises_anything_but_a_read_error(noise, start):
    with contextlib.suppress(ReadError):
        read_image(start + noise, memory_limit_bytes=64 * MIB)


@pytest.mark.shared_data
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(
        [
            "robyoung__data__WG04__JLSL__NM1_JLSL",
            "robyoung__data__WG04__RLE__CT2_RLE",
            "robyoung__data__WG04__JPLY__MR1_JPLY",
            "pydicom_data__emri_small_RLE.dcm",
            "robyoung__data__dcmqi__segmentations__24x38x3__multiframe__mf.dcm",
        ]
    ),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=20),
)
def test_damaged_real_files(shared_data, name, flips):
    damaged = bytearray((shared_data / "dicom" / "files" / name).read_bytes())
    for place, value in flips:
        damaged[int(place * len(damaged))] = value
    with contextlib.suppress(ReadError):
        read_image(bytes(damaged), memory_limit_bytes=1024 * MIB)


def test_copies_of_one_file_under_all_names_give_the_same(make_dicom, tmp_path):
    first = tmp_path / "a.png"
    first.write_bytes(make_dicom(PIXELS))
    shutil.copy(first, tmp_path / "b")
    np.testing.assert_array_equal(read_image(first).pixels, read_image(tmp_path / "b").pixels)


def test_a_subfolder_that_may_not_be_read_is_listed_and_not_lost(tmp_path, monkeypatch):
    (tmp_path / "open").mkdir()
    (tmp_path / "closed").mkdir()
    (tmp_path / "open" / "a.png").write_bytes(b"x")
    real = os.scandir

    def scandir(path):  # file permissions do not stop root, under which CI may run
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert [path.name for path in find_images(tmp_path)] == ["a.png", "closed"]
