"""All real DICOM files of the shared folder: read, or refused for the right reason, within bounds."""

from __future__ import annotations

import csv
import json
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.pixels import get_decoder

from MediScanLib.study.decoding import TIME_LIMIT
from MediScanLib.study.reading import read_image

pytestmark = [pytest.mark.shared_data, pytest.mark.filterwarnings("ignore::UserWarning:pydicom")]

REFUSED = {
    "pylibjpeg__ljdata__ds__README.rst": "not_an_image",  # a text
    "pylibjpeg__ljdata__ds__JPEG2000Lossless__966.dcm": "corrupt",  # no reader can decode it
    "robyoung__data__dcmqi__sr-example__sr.dcm": "no_pixel_data",  # a structured report
    "robyoung__data__pydicom__priv_SQ.dcm": "no_pixel_data",  # a data set without an image
}
"""The only files that may be refused, with the code. None of the three columns of files.csv calls any of them ok."""

MOST_BYTES = 2 * 1024**3

SCRIPT = """
import json, sys, time
from pathlib import Path
from MediScanLib.errors import ReadError
from MediScanLib.study.decoding import shared_decoder
from MediScanLib.study.reading import read_image

def high_water(process):
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

for path in sys.stdin:
    path = path.rstrip("\\n")
    start = time.perf_counter()
    try:
        image = read_image(path)
        answer = {"shape": image.shape}
    except ReadError as error:
        answer = {"code": error.code, "message": str(error)}
    answer["seconds"] = time.perf_counter() - start
    child = shared_decoder()._process
    answer["bytes"] = high_water("self") + (high_water(child.pid) if child else 0)
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def table(shared_data) -> list[dict[str, str]]:
    with (shared_data / "dicom" / "files.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_file_is_read_or_refused_for_the_right_reason(shared_data, table):
    """In a process of its own, so that a crash, a hang or a greedy file fails here and does not end the tests."""
    assert len(table) == 147
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    answers = {}
    try:
        for row in table:
            path = shared_data / row["path"]
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], TIME_LIMIT if answers else 60)
            assert ready, f"{path.name} took more than {TIME_LIMIT} s"
            line = process.stdout.readline()
            assert line, f"{path.name} ended the process"
            answers[path.name] = json.loads(line)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    slowest = max(answers, key=lambda name: answers[name]["seconds"])
    peak = max(answer["bytes"] for answer in answers.values())
    print(
        f"\n{sum('shape' in a for a in answers.values())} of {len(answers)} read, "
        f"slowest {answers[slowest]['seconds']:.2f} s ({slowest}), peak {peak / 1024**2:.0f} MiB"
    )
    assert {name: answer["code"] for name, answer in answers.items() if "code" in answer} == REFUSED
    assert peak < MOST_BYTES
    for row in table:
        called_ok = any(
            row[column].startswith("ok") for column in ("pydicom_numpy_pillow", "pydicom_pylibjpeg", "simpleitk")
        )
        name = Path(row["path"]).name
        if called_ok:
            assert "shape" in answers[name], name
            if "PixelAspectRatio" not in name and not name.startswith("pydicom_data__color-p"):  # stretched
                assert answers[name]["shape"] == [int(row["frames"] or 1), int(row["rows"]), int(row["columns"])]


def _simpleitk(path: Path) -> np.ndarray:
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    if array.ndim == 4:
        array = array[..., :3] @ np.array([0.299, 0.587, 0.114]) * (255 / np.iinfo(array.dtype).max)
    return array.astype(np.float64)


EXPLAINED = {
    "pydicom_data__mlut_18.dcm": "SimpleITK ignores the modality LUT",
    "pylibjpeg__ljdata__ds__JPEGBaseline__SC_rgb_jpeg_lossy_gdcm.dcm": "SimpleITK takes YCbCr for RGB",
    "pydicom_data__color-pl.dcm": "pixels that are not square are stretched here",
    "pydicom_data__color-px.dcm": "pixels that are not square are stretched here",
    "pydicom_data__eCT_Supplemental.dcm": "slices are sorted by position here",
    "wado__testImages__CT0012.fragmented_no_bot_jpeg_baseline.51.dcm": "slices are sorted by position here",
    "wado__testImages__US-YBR_FULL_422-EVRLE.dcm": "luminance is Y here, there it goes through clipped RGB",
    "pydicom_data__SC_ybr_full_uncompressed.dcm": "luminance is Y here, there it goes through clipped RGB",
}


def test_values_agree_with_simpleitk(shared_data, table):
    compared = 0
    for row in table:
        path = shared_data / row["path"]
        if not row["simpleitk"].startswith("ok") or path.name in EXPLAINED or row["modality"] == "SEG":
            continue
        image, expected = read_image(path), _simpleitk(path)
        if image.units == "HU":
            expected = np.maximum(expected, -1024)
        tolerance = 1.0 if image.color else 1e-6 * max(1.0, float(np.abs(expected).max()))
        different = np.abs(image.pixels - expected) > tolerance
        padding = pydicom.dcmread(path, stop_before_pixels=True).get("PixelPaddingValue")
        if padding is not None and image.units != "HU":
            different &= expected != padding
        assert not different.any(), (path.name, float(np.abs(image.pixels - expected).max()))
        compared += 1
    assert compared > 120


def test_monochrome1_is_inverted_once_by_two_readings(shared_data, table):
    """SimpleITK inverts by itself, pydicom does not: both must lead to the same image."""
    seen = set()
    for row in table:
        if row["photometric"] != "MONOCHROME1" or not row["simpleitk"].startswith("ok"):
            continue
        path = shared_data / row["path"]
        image = read_image(path)
        assert image.inverted
        np.testing.assert_array_equal(image.pixels, _simpleitk(path))
        ds = pydicom.dcmread(path)
        if row["pydicom_numpy_pillow"].startswith("ok"):
            raw, _ = get_decoder(ds.file_meta.TransferSyntaxUID).as_array(ds, raw=True)
            np.testing.assert_allclose(image.pixels[0], (1 << ds.BitsStored) - 1 - raw.astype(float), atol=1)
        seen.add(row["transfer_syntax"])
    assert len(seen) >= 6


def test_one_image_in_many_transfer_syntaxes_is_one_image(shared_data):
    folder = shared_data / "dicom" / "files"
    start = "robyoung__data__WG04__"
    for name, kinds in {
        "RG3": ("RLE", "JPLL", "JLSL"),
        "MR1": ("RLE", "JPLL", "JLSL", "J2KR"),
        "MR3": ("JPLL", "JLSL", "J2KR"),
        "CT1": ("JPLL", "JLSL"),
    }.items():
        images = [read_image(folder / f"{start}{kind}__{name}_{kind}") for kind in kinds]
        for image in images[1:]:
            np.testing.assert_array_equal(image.pixels, images[0].pixels)
    whole = read_image(folder / "pydicom_data__emri_small_jpeg_2k_lossless.dcm")
    without_end = read_image(folder / "pydicom_data__emri_small_jpeg_2k_lossless_too_short.dcm")
    np.testing.assert_array_equal(whole.pixels, without_end.pixels)
    for kind in ("big_endian", "RLE"):
        np.testing.assert_array_equal(read_image(folder / f"pydicom_data__emri_small_{kind}.dcm").pixels, whole.pixels)


def test_palette_is_the_same_in_both_byte_orders(shared_data):
    folder = shared_data / "dicom" / "files"
    little = read_image(folder / "pydicom_data__OBXXXX1A.dcm")
    for other in ("pydicom_data__OBXXXX1A_expb.dcm", "pydicom_data__OBXXXX1A_rle.dcm"):
        np.testing.assert_array_equal(read_image(folder / other).pixels, little.pixels)


OUR_WORDS = {"patient", "anonymous", "study", "series"}  # names of identifiers, which test data use as values


def test_no_name_or_identifier_of_a_patient_comes_through(shared_data, table):
    for row in table:
        path = shared_data / row["path"]
        if not row["simpleitk"].startswith("ok"):
            continue
        image = read_image(path, name="study")
        shown = repr([getattr(image, field) for field in image.__dataclass_fields__ if field != "pixels"]).lower()
        ds = pydicom.dcmread(path, stop_before_pixels=True)
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "SOPInstanceUID", "PatientBirthDate"):
            for part in str(ds.get(keyword) or "").replace("^", " ").split():
                if len(part) >= 4 and part.lower() not in OUR_WORDS:
                    assert part.lower() not in shown, (path.name, keyword)
