"""PNG, JPEG, TIFF, NIfTI, NRRD and MetaImage."""

from __future__ import annotations

import gzip
import io
import shutil
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from MediScanLib.errors import ReadError
from MediScanLib.study.reading import read_image

GREY = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
COLOR = np.random.default_rng(1).integers(0, 256, (20, 30, 3)).astype(np.uint8)
LUMINANCE = COLOR @ np.array([0.299, 0.587, 0.114])
VOLUME = np.random.default_rng(2).normal(size=(4, 5, 6)).astype(np.float32)


def saved(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("as_path", [True, False])
def test_grey(tmp_path, kind, as_path):
    content = saved(Image.fromarray(GREY), kind)
    path = tmp_path / "picture.dcm"  # the ending says nothing
    path.write_bytes(content)
    image = read_image(path if as_path else content)
    np.testing.assert_array_equal(image.pixels[0], GREY)
    assert image.spacing is None and image.modality is None and not image.color and not image.warnings
    assert image.reader.startswith("Pillow") and kind in image.reader
    assert image.source == (str(path) if as_path else "bytes")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_stay_16_bits(kind):
    values = GREY.astype(np.uint16) * 200
    np.testing.assert_array_equal(read_image(saved(Image.fromarray(values), kind)).pixels[0], values)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_tiff_is_turned_round(bits):
    """Written byte by byte: Pillow turns 8-bit pages round in writing too, so that it cannot tell."""
    values = GREY.astype(f"<u{bits // 8}") * (200 if bits == 16 else 1)
    rows, columns = values.shape
    tags = {256: columns, 257: rows, 258: bits, 259: 1, 262: 0, 273: 8, 277: 1, 278: rows, 279: values.nbytes}
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, tags[tag]) for tag in tags)
    content = struct.pack("<2sHI", b"II", 42, 8 + values.nbytes) + values.tobytes()
    content += struct.pack("<H", len(tags)) + entries + bytes(4)
    image = read_image(content)
    np.testing.assert_array_equal(image.pixels[0], 2**bits - 1 - values.astype(float))
    assert image.inverted


def test_float_tiff_and_its_nan():
    values = np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)
    values[3, 4] = np.nan
    image = read_image(saved(Image.fromarray(values), "TIFF"))
    assert image.pixels[0, 3, 4] == -1
    assert any("NaN" in note for note in image.warnings)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_color_becomes_luminance(kind):
    image = read_image(saved(Image.fromarray(COLOR), kind))
    np.testing.assert_allclose(image.pixels[0], LUMINANCE, atol=0.01)
    assert image.color


def test_grey_stored_as_color_is_not_color():
    picture = Image.fromarray(GREY).convert("RGB")
    assert not read_image(saved(picture, "PNG")).color
    assert not read_image(saved(picture, "JPEG", quality=30)).color


def test_palette_and_one_bit():
    few = Image.fromarray(COLOR // 128 * 255).quantize(8)
    image = read_image(saved(few, "PNG"))
    expected = np.asarray(few.convert("RGB")) @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(image.pixels[0], expected, atol=0.01)
    black_and_white = Image.fromarray(GREY > 99)
    np.testing.assert_array_equal(read_image(saved(black_and_white, "PNG")).pixels[0], (GREY > 99) * 255)


def test_transparency_is_laid_over_black():
    picture = Image.fromarray(COLOR).convert("RGBA")
    alpha = Image.fromarray(np.where(np.arange(30) < 15, 255, 0)[None].repeat(20, 0).astype(np.uint8))
    picture.putalpha(alpha)
    image = read_image(saved(picture, "PNG"))
    np.testing.assert_allclose(image.pixels[0, :, :15], LUMINANCE[:, :15], atol=0.01)
    assert (image.pixels[0, :, 15:] == 0).all()
    assert any("transparent" in note for note in image.warnings)
    opaque = read_image(saved(Image.fromarray(GREY).convert("LA"), "PNG"))
    np.testing.assert_array_equal(opaque.pixels[0], GREY)
    assert not opaque.warnings


def test_cmyk_jpeg():
    image = read_image(saved(Image.new("CMYK", (16, 16), (0, 0, 0, 128)), "JPEG"))
    np.testing.assert_allclose(image.pixels, 127, atol=3)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_camera_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = np.zeros((40, 80), np.uint8)
    picture[:8, :8] = 255
    turned = {1: 0, 3: 2, 6: 3, 8: 1}[orientation]
    image = read_image(saved(Image.fromarray(picture), "JPEG", exif=exif, quality=95))
    np.testing.assert_allclose(image.pixels[0], np.rot90(picture, turned), atol=30)


def test_first_picture_of_an_animation():
    frames = [Image.fromarray(GREY), Image.fromarray(GREY // 2)]
    image = read_image(saved(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    np.testing.assert_array_equal(image.pixels[0], GREY)
    assert image.shape[0] == 1 and any("animation" in note for note in image.warnings)


def test_pages_of_a_tiff_are_slices():
    pages = [Image.fromarray(GREY), Image.fromarray(GREY // 2), Image.fromarray(GREY // 3)]
    image = read_image(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    np.testing.assert_array_equal(image.pixels, np.stack([GREY, GREY // 2, GREY // 3]))
    assert image.slice_axis == "frame"


def test_pages_of_different_size_are_refused():
    pages = [Image.fromarray(GREY), Image.fromarray(GREY[:5])]
    with pytest.raises(ReadError) as caught:
        read_image(saved(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert caught.value.code == "geometry"


# volumes


def itk_volume(angles=(0.1, -0.2, 0.3), spacing=(0.5, 0.7, 2.0), origin=(-12.0, 34.0, 56.0)) -> SimpleITK.Image:
    volume = SimpleITK.GetImageFromArray(VOLUME)
    turn = SimpleITK.Euler3DTransform()
    turn.SetRotation(*angles)
    volume.SetDirection(turn.GetMatrix())
    volume.SetSpacing(spacing)
    volume.SetOrigin(origin)
    return volume


ENDINGS = [".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd"]


@settings(max_examples=10, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-1.5, 1.5)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 5)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    ending=st.sampled_from(ENDINGS),
    compress=st.booleans(),
)
def test_geometry_goes_through_every_volume_format(tmp_path_factory, angles, spacing, origin, ending, compress):
    path = tmp_path_factory.mktemp("volume") / f"volume{ending}"
    written = itk_volume(angles, spacing, origin)
    SimpleITK.WriteImage(written, str(path), compress)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, VOLUME)
    for index in ((0, 0, 0), (3, 4, 5), (1, 0, 5)):
        expected = written.TransformIndexToPhysicalPoint(index[::-1])
        np.testing.assert_allclose(image.to_physical(index), expected, atol=0.01)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_volumes_from_bytes_and_under_a_wrong_name(tmp_path, ending):
    path = tmp_path / f"volume{ending}"
    SimpleITK.WriteImage(itk_volume(), str(path), True)
    wrong = tmp_path / "study.png"
    shutil.copy(path, wrong)
    for source in (path.read_bytes(), wrong):
        image = read_image(source, name="study")
        np.testing.assert_array_equal(image.pixels, VOLUME)
        assert image.source == "study"


def test_nifti_as_nibabel_sees_it(tmp_path):
    affine = np.array([[0, -0.8, 0, 10], [0, 0, 3, 20], [-0.8, 0, 0, 30], [0, 0, 0, 1.0]])
    raw = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nifti = nibabel.Nifti1Image(raw, affine)
    nifti.header.set_slope_inter(2.0, -100.0)
    path = tmp_path / "scaled.nii.gz"
    nibabel.save(nifti, path)
    image = read_image(path)
    loaded = nibabel.load(path)
    np.testing.assert_allclose(image.pixels, np.asarray(loaded.dataobj).T)
    assert not np.array_equal(image.pixels, raw.T)
    x, y, z = (loaded.affine @ [2, 3, 1, 1])[:3]  # RAS
    np.testing.assert_allclose(image.to_physical((1, 3, 2)), (-x, -y, z), atol=1e-4)


def test_first_of_several_nifti_volumes(tmp_path):
    path = tmp_path / "series.nii"
    data = np.random.default_rng(0).normal(size=(3, 4, 5, 6)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)
    image = read_image(path)
    np.testing.assert_array_equal(image.pixels, data[..., 0].T)
    assert any("6 volumes" in note for note in image.warnings)


def test_two_dimensional_volume_file(tmp_path):
    path = tmp_path / "flat.nrrd"
    flat = SimpleITK.GetImageFromArray(GREY)
    flat.SetSpacing((0.5, 0.25))
    SimpleITK.WriteImage(flat, str(path))
    image = read_image(path)
    assert image.shape == (1, 20, 30) and image.spacing == (0.5, 0.25, 1.0)


def test_color_volume(tmp_path):
    path = tmp_path / "color.nrrd"
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(COLOR[None], isVector=True), str(path))
    image = read_image(path)
    np.testing.assert_allclose(image.pixels[0], LUMINANCE, atol=0.01)
    assert image.color


@pytest.mark.parametrize("kind", ["nii", "nrrd"])
def test_sheared_axes_are_refused(tmp_path, kind):
    path = tmp_path / f"sheared.{kind}"
    if kind == "nii":
        affine = np.eye(4)
        affine[0, 2] = 0.4
        header = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.float32), None)
        header.set_sform(affine, 1)
        header.set_qform(None, 0)
        nibabel.save(header, path)
    else:
        SimpleITK.WriteImage(itk_volume((0, 0, 0)), str(path))
        content = path.read_bytes()
        changed = content.replace(b"(0,0,2)", b"(1,0,2)")
        assert changed != content
        path.write_bytes(changed)
    with pytest.raises(ReadError) as caught:
        read_image(path)
    assert caught.value.code == "geometry"


def test_not_finite_everywhere(tmp_path):
    path = tmp_path / "nan.nii"
    nibabel.save(nibabel.Nifti1Image(np.full((3, 4, 5), np.nan, np.float32), np.eye(4)), path)
    with pytest.raises(ReadError) as caught:
        read_image(path)
    assert caught.value.code == "not_finite"


def test_values_beyond_float32_stay_finite(tmp_path):
    path = tmp_path / "huge.nii"
    data = np.linspace(0, 1, 60).reshape(3, 4, 5)
    data[0, 0, 0] = 1e300
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4)), path)
    image = read_image(path)
    assert image.pixels.max() == 1 and image.warnings


# pixels in another file


@pytest.mark.parametrize(
    "target", ["../outside.raw", "/etc/hostname", "sub/inside.raw", "LIST", "slice%03d.raw 1 4 1"]
)
@pytest.mark.parametrize("ending", ["nhdr", "mhd"])
def test_detached_pixels_only_from_the_same_folder(tmp_path, target, ending):
    inside = tmp_path / "study"
    inside.mkdir()
    path = inside / f"volume.{ending}"
    SimpleITK.WriteImage(itk_volume(), str(path))
    (tmp_path / "outside.raw").write_bytes(VOLUME.tobytes())
    field = b"data file: volume.raw" if ending == "nhdr" else b"ElementDataFile = volume.raw"
    content = path.read_bytes()
    assert field in content
    path.write_bytes(content.replace(field, field.replace(b"volume.raw", target.encode())))
    with pytest.raises(ReadError, match="own folder") as caught:
        read_image(path)
    assert caught.value.code == "unsupported"


def test_detached_pixels_not_through_a_link(tmp_path):
    inside = tmp_path / "study"
    inside.mkdir()
    path = inside / "volume.nhdr"
    SimpleITK.WriteImage(itk_volume(), str(path))
    outside = tmp_path / "outside.raw"
    shutil.move(inside / "volume.raw", outside)
    (inside / "volume.raw").symlink_to(outside)
    with pytest.raises(ReadError, match="own folder"):
        read_image(path)


def test_detached_pixels_missing_or_sent_as_bytes(tmp_path):
    path = tmp_path / "volume.nhdr"
    SimpleITK.WriteImage(itk_volume(), str(path))
    with pytest.raises(ReadError) as caught:
        read_image(path.read_bytes())
    assert caught.value.code == "unsupported"
    (tmp_path / "volume.raw").unlink()
    with pytest.raises(ReadError) as caught:
        read_image(path)
    assert caught.value.code == "not_found"


def test_gzip_of_something_else():
    with pytest.raises(ReadError) as caught:
        read_image(gzip.compress(b"hello" * 200))
    assert caught.value.code == "unsupported"


def test_a_header_without_spacing_gives_no_lengths(tmp_path):
    pixels = np.arange(24, dtype=np.uint8)
    nrrd = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 4 3 2\nencoding: raw\n\n" + pixels.tobytes()
    meta = b"NDims = 3\nDimSize = 4 3 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + pixels.tobytes()
    for content in (nrrd, meta):
        image = read_image(content, name="bare")
        assert image.spacing is None
        assert np.array_equal(image.pixels.ravel(), pixels)
    assert read_image(nrrd.replace(b"encoding", b"spacings: 1 2 3\nencoding"), name="spaced").spacing == (1, 2, 3)


def test_a_metaimage_that_skips_bytes_is_refused():
    meta = b"NDims = 3\nHeaderSize = 5\nDimSize = 4 3 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    with pytest.raises(ReadError, match="skips parts"):
        read_image(meta + bytes(24), name="skipping")
