"""Header values as plain Python values: None where an element is absent or unreadable."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence


def element_value(dataset: Dataset, keyword: str) -> Any:
    """A value of a data set, None where absent or unreadable."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote header values
            return dataset.get(keyword)
    except RecursionError:
        raise
    except Exception:
        return None


def element_text(dataset: Dataset, keyword: str) -> str | None:
    """A text in upper case without surrounding blanks, None where absent or empty."""
    return str(element_value(dataset, keyword) or "").strip().upper() or None


def element_code(dataset: Dataset, keyword: str) -> str | None:
    """A code string (PS3.5, CS: 16 letters, digits, blanks and underscores), None for anything else.

    Free text in its place is not passed on: it may name a person.
    """
    text = element_text(dataset, keyword)
    return text if text and re.fullmatch(r"[A-Z0-9 _]{1,16}", text) else None


def element_items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence, none where absent or unreadable."""
    value = element_value(dataset, keyword)
    return [item for item in value if isinstance(item, Dataset)] if isinstance(value, Sequence) else []


def element_numbers(dataset: Dataset, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
    """All finite numbers of an element; None where there are none, or not exactly `count`."""
    value = element_value(dataset, keyword)
    if value is None or isinstance(value, bytes | bytearray):
        return None
    items = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    try:
        numbers = tuple(float(item) for item in items)
    except (TypeError, ValueError):
        return None
    if not numbers or not all(map(math.isfinite, numbers)) or (count is not None and len(numbers) != count):
        return None
    return numbers


def element_number(dataset: Dataset, keyword: str) -> float | None:
    """A finite number, the first of several, None where absent or unreadable."""
    numbers = element_numbers(dataset, keyword)
    return numbers[0] if numbers else None
