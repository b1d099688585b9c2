"""Plain signs that an image is not what it should be: each is found where it is, and hardly ever where it is not."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from MediScanLib.network.presentation import PRESENTATIONS
from MediScanLib.prediction.plausibility import image_doubts, presentation_doubts
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.phantom import make_phantom
from MediScanLib.study.reading import read_image

SCREENSHOTS = Path(__file__).resolve().parents[2] / "Resources" / "Screenshots"


def codes(image: MedicalImage, slices=None) -> list[str]:
    return [doubt.code for doubt in image_doubts(image, slices)]


def picture(pixels, **facts) -> MedicalImage:
    """As if read from a file."""
    pixels = np.asarray(pixels, dtype=np.float32)
    return MedicalImage(pixels=pixels.reshape(-1, *pixels.shape[-2:]), reader="Pillow", source="made", **facts)


def smooth(rows: int = 300, columns: int = 260) -> np.ndarray:
    """A picture with soft shapes and nothing to doubt: 20 to 200 or so."""
    y, x = np.mgrid[0:rows, 0:columns] / 40
    return np.round(110 + 45 * np.sin(x) * np.cos(y) + 45 * np.sin(0.3 * x + 0.4 * y))


@pytest.fixture(scope="module")
def val(shared_data) -> list[tuple[str, MedicalImage]]:
    """Every fourth image of val."""
    with (shared_data / "studies.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["split"] == "val"]
    return [(row["source"], read_image(shared_data / row["image"])) for row in rows[::4]]


@pytest.mark.shared_data
def test_real_studies_are_hardly_ever_doubted(val):
    doubted = [(source, codes(image)) for source, image in val if codes(image)]
    assert len(val) > 90
    assert {source for source, _ in val} >= {"nih", "cohen", "bone_eeeh", "bone_roboflow", "busi", "iqothnccd"}
    assert len(doubted) <= 0.02 * len(val), doubted


def test_a_soft_picture_is_not_doubted():
    assert codes(picture(smooth())) == []


@pytest.mark.parametrize("value", [0, 1, 255])
def test_one_gray_value_is_nearly_blank(value):
    assert codes(picture(np.full((64, 64), value))) == ["nearly_blank"]


@pytest.mark.shared_data
def test_hardly_any_contrast_is_nearly_blank(val):
    for _, image in val[::3]:
        assert codes(picture(np.round(image.pixels[0] / 255 * 6))) == ["nearly_blank"]
        assert codes(picture(np.round(100 + image.pixels[0] / 255 * 3))) == ["nearly_blank"]


def test_values_between_0_and_1_are_not_few_gray_values():
    assert codes(MedicalImage(pixels=smooth()[None] / 255, source="array")) == []


@pytest.mark.parametrize("size", [64, 300, 900])
def test_noise_has_no_structure(size):
    rng = np.random.default_rng(size)
    assert codes(picture(rng.normal(100, 20, (size, size)))) == ["no_structure"]
    assert codes(picture(rng.random((size, size)))) == ["no_structure"]


@pytest.mark.shared_data
def test_masks_among_the_dicom_files_are_nearly_blank(shared_data):
    for path in sorted((shared_data / "dicom" / "files").glob("*liver*")):
        assert codes(read_image(path)) == ["nearly_blank"]


def test_color_is_doubted_except_in_ultrasound():
    assert codes(picture(smooth(), color=True)) == ["color_picture"]
    assert codes(picture(smooth(), color=True, modality="DX")) == ["color_picture"]
    assert codes(picture(smooth(), color=True, modality="US")) == []


@pytest.mark.shared_data
def test_color_photographs_in_dicom_are_doubted(shared_data):
    photographs = sorted((shared_data / "dicom" / "files").glob("*VL*"))
    assert len(photographs) >= 8
    assert all("color_picture" in codes(read_image(path)) for path in photographs)


@pytest.mark.parametrize("path", sorted(SCREENSHOTS.glob("*.png")), ids=lambda path: path.stem)
def test_screenshots_of_this_program_are_doubted(path):
    gray = replace(read_image(path), color=False)
    assert set(codes(gray)) & {"screenshot", "no_structure", "mostly_border"}


def written_on(image: MedicalImage, lines: int) -> MedicalImage:
    """With text in both upper corners."""
    drawn = Image.fromarray(image.pixels[0].astype(np.uint8))
    draw, size = ImageDraw.Draw(drawn), max(11, drawn.height // 34)
    font = ImageFont.load_default(size=size)
    for line in range(lines):
        draw.text((4, 4 + 1.3 * size * line), "Study 2021-11-04 10:32", fill=255, font=font)
        draw.text((drawn.width - 4, 4 + 1.3 * size * line), "W 2048 L 1024 Zoom 87", fill=255, font=font, anchor="ra")
    return picture(np.asarray(drawn))


@pytest.mark.shared_data
def test_much_writing_on_radiographs_is_doubted_and_a_side_mark_is_not(val):
    chests = [image for source, image in val if source in ("nih", "cohen")]
    much = [codes(written_on(image, 8)) == ["screenshot"] for image in chests]
    assert len(much) >= 25
    assert np.mean(much) > 0.85
    for image in chests:
        marked = Image.fromarray(image.pixels[0].astype(np.uint8))
        ImageDraw.Draw(marked).text((20, 20), "R", fill=255, font=ImageFont.load_default(size=40))
        assert "screenshot" not in codes(picture(np.asarray(marked)))


def test_a_picture_in_hounsfield_units_is_no_screenshot():
    written = written_on(picture(smooth(400, 400)), 12)
    assert codes(written) == ["screenshot"]
    assert codes(replace(written, units="HU", modality="CT")) == []


def test_what_is_mostly_black_border_is_doubted():
    canvas = np.zeros((640, 560))
    canvas[:300, 100:360] = smooth()
    assert codes(picture(canvas)) == ["mostly_border"]
    assert codes(picture(canvas[:420, 60:400])) == []


def test_a_strip_is_doubted_by_its_size_in_space():
    strip = smooth(600, 120)
    assert codes(picture(strip)) == ["partial_picture"]
    assert codes(picture(strip, spacing=(2.0, 1.0, 1.0))) == []
    assert codes(picture(strip.T)) == ["partial_picture"]


def test_the_phantom_says_so_and_its_name_in_a_header_too():
    assert codes(make_phantom()) == ["phantom"]
    assert codes(picture(smooth(), body_part="PHANTOM")) == ["phantom"]


def test_a_volume_is_doubted_for_what_all_its_slices_have():
    black = np.zeros((300, 260))
    good = picture(np.stack([black, smooth(), smooth(), smooth(), black]))
    assert codes(good) == []
    assert codes(good, [0, 4]) == ["nearly_blank"]
    assert codes(good, [1]) == []
    assert codes(picture(np.stack([black] * 7))) == ["nearly_blank"]
    assert codes(good, []) == []


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    offset=st.floats(-3e4, 3e4),
    scale=st.floats(0, 1e30),
    seed=st.integers(0, 9),
)
def test_any_finite_pixels_are_answered_with_a_reason_each(rows, columns, offset, scale, seed):
    values = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    found = image_doubts(picture(np.float32(offset) + values * np.float32(scale)))
    assert len({doubt.code for doubt in found}) == len(found)
    assert all(doubt.message.endswith(".") and "nan" not in doubt.message for doubt in found)


@settings(max_examples=20, deadline=None)
@given(gain=st.floats(0.05, 1000), turns=st.integers(0, 3))
def test_gain_and_turning_do_not_make_a_doubt(gain, turns):
    pixels = np.rot90(smooth() * gain, turns)
    assert codes(MedicalImage(pixels=pixels[None].astype(np.float32), source="made")) == []


def test_the_likeliest_wrong_presentation_is_told():
    image = picture(smooth())
    assert presentation_doubts(image, [-1.0, -0.1, 0.0, -2.0]) == []
    told = {
        name: presentation_doubts(image, [2.0 if name == other else 0.5 for other in PRESENTATIONS])
        for name in PRESENTATIONS
    }
    assert [[doubt.code for doubt in told[name]] for name in PRESENTATIONS] == [
        ["upside_down"],
        ["turned"],
        ["turned"],
        ["inverted"],
    ]
    assert presentation_doubts(image, [float("nan")] * 4) == []
    assert presentation_doubts(replace(image, units="HU"), [9.0] * 4) == []
    with pytest.raises(ValueError, match="3 values"):
        presentation_doubts(image, [1.0, 1.0, 1.0])
