"""Predictions as one HTML page that needs nothing else: no scripts, no network, pictures inside."""

from __future__ import annotations

import base64
import io
import math
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template  # comes with PyTorch
from PIL import Image, ImageOps

from ..errors import UsageError
from ..notice import RESEARCH_USE_NOTICE
from ..prediction.result import Prediction
from ..prediction.sentences import trust_sentences
from ..study.fields import FIELDS
from ..writing import atomic_write
from . import html_template
from .slice_curve import slice_curve

PICTURE_WIDTH = 1200
JPEG_QUALITY = 88
MOST_PICTURE_BYTES = 64 << 20
"""Of one picture that is given."""

MOST_PICTURE_PIXELS = 1 << 26
PAGE_PICTURE_BYTES = 48 << 20
"""Of all pictures on a page, as they are stored there."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def write_html(prediction: Prediction, path: Path, pictures: Mapping[str, Path | bytes] = {}) -> None:
    """Write the page of one prediction.

    Args:
        prediction: What was said.
        path: File; an older one is replaced once the new one is whole.
        pictures: A picture (PNG, JPEG...), or its file, by the finding whose heat map it shows.

    Raises:
        UsageError: The place cannot be written, or a picture is none, or of another finding.
        WriteError: The disk is full; an older file is untouched.
    """
    with HtmlPage(path) as page:
        page.add(prediction, pictures)


class HtmlPage:
    """A page of predictions: one stands alone, several get a table of contents. It is written when it is closed.

    Use as a context manager; on an error or an interrupt what was added until then is written all the same.

    Args:
        path: File; an older one is replaced once the new one is whole.

    Raises:
        UsageError: The place cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(None, "it is a folder")
            # sections wait beside the page, where there is room if there is room for the page
            self._sections = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed in close
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}). Choose another place.") from error
        self._lines: list[_Line] = []
        self._picture_bytes = 0
        self._alone: tuple[Template, dict[str, Any]] | None = None
        """The first section, which looks otherwise if no other follows."""

    def add(self, prediction: Prediction, pictures: Mapping[str, Path | bytes] = {}) -> None:
        """Add a prediction.

        Args:
            prediction: What was said.
            pictures: As in `write_html`; left out where the page holds `PAGE_PICTURE_BYTES` of them.

        Raises:
            UsageError: A picture is none, or of another finding.
        """
        if unknown := sorted(set(pictures) - set(prediction.probabilities)):
            raise UsageError(f"{prediction.input}: there is a picture of {unknown[0]!r}, which is no finding of it.")
        drawn, left_out = [], False
        for label, picture in pictures.items():
            text = _jpeg(label, picture) if self._picture_bytes < PAGE_PICTURE_BYTES else ""
            if not text or self._picture_bytes + len(text) > PAGE_PICTURE_BYTES:
                left_out = True
                continue
            self._picture_bytes += len(text)
            peak = next((m.index[0] for m in prediction.heat_maps if m.label == label), None)
            place = peak if prediction.image.shape[0] > 1 else None
            drawn.append({"label": label, "base64": text, "slice": place})
        top = prediction.top
        self._append(
            _Line(
                prediction.input,
                f"{top.label} {_probability(top.probability)}, {top.decision}",
                "left to a human" if prediction.certainty.deferred else "",
            ),
            _templates()["section"],
            {**_facts(prediction), "pictures": drawn, "left_out": left_out},
        )

    def add_failure(self, source: str, message: str) -> None:
        """Add an input that there is no prediction of."""
        self._append(
            _Line(source, "", "no prediction"), _templates()["failure"], {"name": _name(source), "message": message}
        )

    def close(self) -> None:
        """Write the page.

        Raises:
            WriteError: The disk is full; an older file is untouched.
        """
        if self._sections.closed:
            return
        several = len(self._lines) != 1
        subject = _count(len(self._lines), "input") if several else _name(self._lines[0].input)
        title = f"MediScan: {subject}"
        try:
            with atomic_write(self.path) as stream:
                stream.write(
                    _bytes(
                        _templates()["head"].render(
                            title=title,
                            notice=RESEARCH_USE_NOTICE,
                            contents=self._contents() if several else None,
                            counts=self._counts(),
                        )
                    )
                )
                if self._alone is not None:
                    self._write(*self._alone, number=None)
                    self._alone = None
                self._sections.seek(0)
                shutil.copyfileobj(self._sections, stream)
                stream.write(_bytes(_templates()["foot"].render(notice=RESEARCH_USE_NOTICE)))
        finally:
            self._sections.close()

    def __enter__(self) -> HtmlPage:
        """The page itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the page."""
        self.close()

    def _append(self, line: _Line, template: Template, values: dict[str, Any]) -> None:
        self._lines.append(line)
        number = len(self._lines)
        if number == 1:
            self._alone = (template, values)
            return
        if self._alone is not None:
            self._write(*self._alone, number=1)
            self._alone = None
        self._write(template, values, number=number)

    def _write(self, template: Template, values: Mapping[str, Any], *, number: int | None) -> None:
        self._sections.write(_bytes(template.render(**values, number=number, notice=RESEARCH_USE_NOTICE)))

    def _contents(self) -> list[dict[str, object]]:
        return [
            {"number": number, "input": line.input, "answer": line.answer, "mind": line.mind}
            for number, line in enumerate(self._lines, start=1)
        ]

    def _counts(self) -> str:
        minds = [line.mind for line in self._lines]
        failed, deferred = minds.count("no prediction"), minds.count("left to a human")
        parts = [
            _count(len(minds) - failed, "prediction"),
            f"{deferred} of them left to a human" if deferred else "",
            f"{_count(failed, 'input')} without one" if failed else "",
        ]
        return ", ".join(filter(None, parts)) + "."


@dataclass(frozen=True)
class _Line:
    """An entry of the table of contents."""

    input: str
    answer: str
    mind: str


@lru_cache(maxsize=1)
def _templates() -> Mapping[str, Template]:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printable
    )
    environment.filters |= {"probability": _probability, "factor": _factor, "odds": _of_odds}
    return {
        "head": environment.from_string(html_template.HEAD),
        "section": environment.from_string(html_template.SECTION),
        "failure": environment.from_string(html_template.FAILURE),
        "foot": environment.from_string(html_template.FOOT),
    }


def _printable(value: object) -> object:
    """Text without the characters that no page may hold; Jinja escapes the rest."""
    return _UNPRINTABLE.sub("\ufffd", value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _bytes(page: str) -> bytes:
    return page.encode("utf-8")


def _facts(prediction: Prediction) -> dict[str, Any]:
    findings = sorted(prediction.findings, key=lambda finding: -finding.probability)
    calibrated = {finding.calibrated for finding in findings}
    return {
        "p": prediction,
        "name": _name(prediction.input),
        "top": prediction.top,
        "findings": findings,
        "trust": trust_sentences(prediction),
        "calibrated": "all" if calibrated == {True} else "none" if calibrated == {False} else "some",
        "curve": slice_curve(prediction),
        "used": [
            {
                "title": _title(name),
                "text": _value(name, value),
                "prefilled": name in prediction.clinical.prefilled,
            }
            for name, value in prediction.clinical.used.items()
        ],
        "missing": [_title(name) for name in prediction.clinical.missing],
        "unlearned": [_title(name) for name in prediction.clinical.unlearned],
        "influence": _influence(prediction),
        "image": _image_facts(prediction),
        "origin": _origin(prediction),
    }


def _influence(prediction: Prediction) -> dict[str, Any] | None:
    """What each clinical value did to the odds of each finding, where the prediction tells."""
    parts = getattr(prediction.clinical, "contributions", None)
    if not parts:
        return None
    fields = list(dict.fromkeys(name for part in parts for name in part.fields))
    return {
        "columns": [part.finding for part in parts],
        "unknown": [part.unknown for part in parts],
        "rows": [
            {"title": _title(name), "factors": [_factor(part.fields.get(name)) for part in parts]} for name in fields
        ],
    }


def _of_odds(log_odds: float) -> str:
    return _probability(1 / (1 + math.exp(-max(-60.0, min(60.0, log_odds)))))


def _factor(log_odds: float | None) -> str:
    if log_odds is None:
        return "–"
    factor = math.exp(max(-60.0, min(60.0, log_odds)))
    return "> 100" if factor > 100 else "< 0.01" if factor < 0.01 else f"× {factor:.2f}"


def _image_facts(prediction: Prediction) -> list[tuple[str, str]]:
    image = prediction.image
    slices, rows, columns = image.shape
    kind = [image.modality or "unknown modality", image.body_part, image.view, image.laterality]
    size = f"{rows} rows, {columns} columns" + (f", {slices} slices" if slices > 1 else "")
    spacing = " × ".join(f"{value:.4g}" for value in image.spacing) + " mm" if image.spacing else "unknown"
    facts = [("Kind", ", ".join(filter(None, kind))), ("Size", size), ("Spacing (column, row, slice)", spacing)]
    changed = [
        text for text, is_so in (("color as gray", image.color), ("MONOCHROME1 inverted", image.inverted)) if is_so
    ]
    if changed:
        facts.append(("Changed on reading", ", ".join(changed)))
    facts.append(("Read by", image.reader))
    facts += [(f"Hashed {level}", digest) for level, digest in image.identifiers.items()]
    return facts


def _origin(prediction: Prediction) -> list[tuple[str, str]]:
    made = prediction.provenance
    return [
        ("Model", f"{made.model} {made.model_version}"),
        ("SHA-256 of the weights", made.model_sha256),
        ("Ran on", f"{made.device}, {made.runtime}"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in made.versions.items())),
        ("Took", ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in made.seconds.items())),
        ("Page written", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
    ]


def _title(name: str) -> str:
    return FIELDS[name].title if name in FIELDS else name


def _value(name: str, value: float | str) -> str:
    text = value if isinstance(value, str) else f"{value:g}"
    return f"{text} {FIELDS[name].unit}".rstrip() if name in FIELDS else text


def _probability(value: float) -> str:
    """Two digits, and never a certainty that was not meant."""
    if 0 < value < 0.005:
        return "< 0.01"
    return "> 0.99" if 0.995 <= value < 1 else f"{value:.2f}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def _name(source: str) -> str:
    return Path(source).name or source or "unnamed"


def _jpeg(label: str, picture: Path | bytes) -> str:
    """A picture as base64 of a JPEG of moderate size, without whatever else the file held.

    Raises:
        UsageError: It is no picture.
    """
    try:
        if isinstance(picture, Path) and picture.stat().st_size > MOST_PICTURE_BYTES:
            raise ValueError("the file is too large")
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            if opened.width * opened.height > MOST_PICTURE_PIXELS:
                raise ValueError("it has too many pixels")
            drawn = ImageOps.exif_transpose(opened).convert("RGB")
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        name = picture if isinstance(picture, Path) else "it"
        raise UsageError(
            f"The picture of {label} cannot be used ({name}: {error}). Give a PNG or JPEG file."
        ) from error
    drawn.thumbnail((PICTURE_WIDTH, 2 * PICTURE_WIDTH), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    drawn.save(stream, format="JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(stream.getvalue()).decode("ascii")
