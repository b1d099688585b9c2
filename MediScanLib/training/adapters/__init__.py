"""Adapters: the field's data sets, from their own files as distributed, into one manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from .chexpert import read_chexpert
from .covidx import read_covidx
from .dicom_table import read_dicom_table
from .entries import Choices, Imported
from .folders import read_folders
from .mimic import read_mimic
from .mura import read_mura
from .nih import read_nih
from .rsna import read_rsna

__all__ = ["ADAPTERS", "Choices", "Imported"]

ADAPTERS: Mapping[str, Callable[[Path, Choices], Imported]] = MappingProxyType(
    {
        "nih": read_nih,
        "chexpert": read_chexpert,
        "covidx": read_covidx,
        "mimic": read_mimic,
        "rsna": read_rsna,
        "mura": read_mura,
        "folders": read_folders,
        "dicom": read_dicom_table,
    }
)
"""Adapter by the name that the command line knows. Each takes the set's folder (`dicom`: the table) and choices."""
