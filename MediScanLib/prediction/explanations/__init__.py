"""Explanations of an image by several methods, and whether the model leans on what they show. One concept a file.

The names below are loaded on first use, so that the list of methods needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .methods import METHODS

__all__ = ["METHODS", "Explanation", "explain", "faithfulness"]

if TYPE_CHECKING:
    from .explaining import explain
    from .explanation import Explanation
    from .hiding import faithfulness

_PUBLIC = {"Explanation": ".explanation", "explain": ".explaining", "faithfulness": ".hiding"}


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
