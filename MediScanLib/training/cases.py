"""What a bundle may tell of its training studies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..network.cases import MAX_CELL, OLDEST, Case
from .datasets import Study

NOT_STATED = "not stated"

_PERMISSIVE = re.compile(
    r"cc0([ -]1\.0)?|public domain"
    r"|cc[ -]by([ -]sa)?([ -][1-4]\.\d)?"
    r"|(nih: )?unrestricted use with attribution"
)
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")


def case_rows(studies: Sequence[Study]) -> list[Case]:
    """Label and statistics of each study: no patient, no exact age, no image name that the licence does not allow.

    Args:
        studies: Those whose features are the references of the novelty, in the same order.
    """
    return [
        Case(
            label=study.label,
            source=_plain(study.source),
            licence=_plain(study.licence) or NOT_STATED,
            view=_plain(study.view) or None,
            age_years=None if study.record.age_years is None else rounded_age(study.record.age_years),
            sex=study.record.sex,
            image=public_name(study) if may_be_shown(study.licence) else None,
        )
        for study in studies
    ]


def may_be_shown(licence: str) -> bool:
    """Whether a licence lets everybody show the image, changed too: the only place that decides it.

    Only what is known to allow it does: CC0, public domain, CC BY, CC BY-SA, and NIH's "unrestricted use with
    attribution". Whatever forbids commercial use or derivatives, states nothing or is not known here does not; of
    several licences, joined by ";", all must allow it.
    """
    parts = [" ".join(part.casefold().split()) for part in licence.split(";")]
    return all(_PERMISSIVE.fullmatch(part) for part in parts)


def rounded_age(years: float) -> int:
    """Age rounded to tens, half up; the oldest together."""
    return min(int((years + 5) // 10) * 10, OLDEST)


def public_name(study: Study) -> str | None:
    """Name of the image in its data set, without the ending of a picture, which copies of the data set change."""
    path = study.image
    name = path.stem if path.suffix.lower() in _IMAGE_ENDINGS else path.name
    return name if name == _plain(name) and not set(name) & set("/\\:") else None


def _plain(text: str) -> str:
    """Printable text on one line that fits a cell."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:MAX_CELL].strip()
