"""What the processes of the page must not load: the model's libraries are in the REST server, once."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("gateway", {"torch", "monai", "vtkmodules", "slicer"}),
        ("app", {"torch", "monai", "sqlalchemy", "fastapi"}),
        ("launching", {"torch", "monai", "aiohttp", "vtkmodules", "slicer"}),
    ],
)
def test_a_process_loads_only_what_it_needs(module, absent):
    script = f"import MediScanLib.web.{module}, sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert not absent & set(done.stdout.split())
