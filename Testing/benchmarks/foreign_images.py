"""Images that are not of a kind that the general model was trained on, real ones and made ones, by kind."""

from __future__ import annotations

import importlib.util
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from MediScanLib.errors import MediScanError
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image

CHEST_CT = ("CT1_", "TOSHIBA_J2K")
"""Parts of the names of the DICOM files that show what the model knows: CT of the chest."""

WORDS = (
    *("Name: DOE JOHN", "ID 1234567", "1956-03-02 M", "Study 2021-11-04 10:32", "W 2048 L 1024", "Zoom 87 %"),
    *("Im: 1/1", "Series 3", "PORTABLE AP", "General Hospital", "kVp 110 mAs 2.5", "Acc 99182", "SE 001 IM 002"),
    *("Thickness 5.0 mm", "Radiology Dept."),
)
"""What stands on screens."""

NOT_PICTURES = {"chessboard_GRAY", "chessboard_RGB", "microaneurysms", "motorcycle_right", "logo"}
"""Files of scikit-image that are no pictures, or the same picture again."""

Named = tuple[str, MedicalImage, tuple[int, ...]]
"""Kind, image and slices."""


def dicom_images(data: Path) -> Iterator[Named]:
    """Of the shared DICOM files those that are not of a trained kind, and the two CT series of heads."""
    for path in sorted((data / "dicom" / "files").iterdir()):
        try:
            image = read_image(path)
        except MediScanError:
            continue
        kind = _kind(image, path.name)
        if kind:
            yield kind, image, (image.shape[0] // 2,)
    for name, kind in (("ct_philips_tilt", "CT of a phantom"), ("ct_ge_variable_gap", "CT of a head, whole")):
        image = read_image(data / "dicom" / name)
        yield kind, image, tuple(range(image.shape[0]))


def _kind(image: MedicalImage, name: str) -> str | None:
    if image.modality == "OT":
        return "color photographs in DICOM" if "VL" in name or "P14SV1_1s_1f_u_16_16" in name else "test patterns"
    if image.modality == "CT":
        if any(part in name for part in CHEST_CT):
            return None
        return "CT of head or neck" if image.units == "HU" else "CT as mask, film or crop"
    if image.modality in ("CR", "DX", "RG"):
        return "radiographs of hip or breast" if image.body_part in ("HIP", "BREAST") else None
    return {"MR": "MR", "US": "ultrasound, not of the breast"}.get(image.modality or "", "NM, XA, SEG, SC")


def pictures(folder: Path | None) -> Iterator[Named]:
    """Photographs and the like that come with scikit-learn, scikit-image and matplotlib, whole and in pieces.

    Args:
        folder: `skimage/data`, None for that of an installed scikit-image.
    """
    rng = np.random.default_rng(0)
    for path in _picture_files(folder):
        image = read_image(path)
        image = image if image.shape[0] == 1 else replace(image, pixels=image.pixels[:1])
        yield "pictures", image, (0,)
        side = min(image.shape[1:]) // 2
        for _ in range(2):
            top, left = (int(rng.integers(length - side + 1)) for length in image.shape[1:])
            yield "pictures", replace(image, pixels=image.pixels[:, top : top + side, left : left + side]), (0,)


def _picture_files(folder: Path | None) -> list[Path]:
    found: list[Path] = []
    for package, part in (("sklearn", "datasets/images"), ("matplotlib", "mpl-data/sample_data")):
        spec = importlib.util.find_spec(package)
        if spec and spec.origin:
            found += sorted((Path(spec.origin).parent / part).glob("*.jpg"))
    spec = importlib.util.find_spec("skimage")
    if folder is None and spec and spec.origin:
        folder = Path(spec.origin).parent / "data"
    if folder:
        found += [p for p in sorted(folder.glob("*.[jp][pn]g")) if p.stem not in NOT_PICTURES]
    return found


def noise() -> Iterator[Named]:
    """White noise, and noise that is even over 4 to 64 pixels."""
    rng = np.random.default_rng(0)
    for number in range(24):
        rows, columns = ((256, 256), (512, 400), (768, 1024))[number % 3]
        cell = 1 if number < 8 else 2 ** (2 + number % 5)
        values = rng.normal(size=(rows // cell, columns // cell)).astype(np.float32)
        smooth = Image.fromarray(values).resize((columns, rows), Image.Resampling.BICUBIC)
        yield "noise", MedicalImage(pixels=np.asarray(smooth)[None], source="noise"), (0,)


def inverted(image: MedicalImage) -> MedicalImage:
    """Bright where it was dark."""
    return image.with_pixels(image.pixels.max() + image.pixels.min() - image.pixels)


def turned(image: MedicalImage, quarters: int) -> MedicalImage:
    """Turned to the left by quarters."""
    return replace(image, pixels=np.rot90(image.pixels, quarters, (1, 2)))


def screenshot(image: MedicalImage, kind: str, rng: np.random.Generator) -> MedicalImage:
    """A slice in the window of a program ("light" or "dark"), or with burnt-in text in its corners ("text").

    Half of them are scaled, half are compressed.
    """
    picture = Image.fromarray(image.pixels[0].clip(0, 255).astype(np.uint8))
    picture = _texts(picture, rng) if kind == "text" else _window(picture, rng, kind == "dark")
    if rng.random() < 0.5:
        scale = rng.uniform(0.6, 0.95)
        picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=85)
        picture = Image.open(stream)
    return of_picture(np.asarray(picture))


def of_picture(gray: npt.NDArray) -> MedicalImage:
    """As if read from a file: (row, column)."""
    return MedicalImage(pixels=gray[None].astype(np.float32), reader="Pillow", source="made")


def _word(rng: np.random.Generator) -> str:
    return WORDS[int(rng.integers(len(WORDS)))]


def _texts(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    drawn = picture.copy()
    draw = ImageDraw.Draw(drawn)
    size = int(max(10, picture.height / rng.uniform(28, 42)))
    font, count = ImageFont.load_default(size=size), int(rng.integers(3, 6))
    low = picture.height - 4 - count * size * 1.3
    for x, y, anchor in ((4, 4, "la"), (picture.width - 4, 4, "ra"), (4, low, "la"), (picture.width - 4, low, "ra")):
        for line in range(count):
            draw.text((x, y + line * size * 1.3), _word(rng), fill=255, font=font, anchor=anchor)
    return drawn


def _window(picture: Image.Image, rng: np.random.Generator, dark: bool) -> Image.Image:
    ground, ink = (40, 225) if dark else (236, 25)
    left, right = int(picture.width * rng.uniform(0.2, 0.4)), int(picture.width * rng.uniform(0, 0.25))
    top = int(picture.height * 0.14)
    window = Image.new("L", (picture.width + left + right, picture.height + top + 24), ground)
    draw, font = ImageDraw.Draw(window), ImageFont.load_default(size=12)
    draw.rectangle((0, 0, window.width, 20), fill=20 if dark else 200)
    draw.text((6, 3), f"Viewer 4.2 - {_word(rng)}", fill=ink, font=font)
    buttons = ("Open", "Save", "Zoom", "Pan", "Invert", "Print")
    for x in range(0, window.width - 66, 70):
        draw.rectangle((4 + x, 26, 66 + x, 48), outline=ink)
        draw.text((8 + x, 30), buttons[int(rng.integers(len(buttons)))], fill=ink, font=font)
    for y in range(60, window.height - 30, 18):
        draw.text((8, y), _word(rng)[: max(4, left // 7)], fill=ink, font=font)
    draw.text((8, window.height - 18), f"Ready    100 %   {_word(rng)}", fill=ink, font=font)
    window.paste(picture, (left, top))
    return window
