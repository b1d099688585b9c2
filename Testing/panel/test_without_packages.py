"""The panel of a fresh Slicer, which has none of the packages that the model needs: it opens, and says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCRIPT = """
import importlib.metadata
import sys
missing = ("pydantic", "torch", "monai", "safetensors", "yaml", "click", "tqdm", "torchvision")
for name in missing:
    sys.modules[name] = None
version = importlib.metadata.version
def known(name):
    if name.lower() in (*missing, "pyyaml"):
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.metadata.version = known
from trame_slicer.core import SlicerApp
from slicer_double.application import application, load_module, settle
core = SlicerApp()
with application(core) as slicer:
    module = load_module()
    panel = module.MediScanWidget(type("Parent", (), {"isEntered": True})())
    panel.setup()
    panel.enter()
    node = module.loadPhantom()
    panel.initializeParameterNode()
    settle()
    assert panel.ui.modelComboBox.currentText == "mediscan-general"
    assert "DX" in panel.ui.imageFactsLabel.text
    assert "packages" in panel.ui.modelCardBrowser.plainText
    assert "PyTorch is not installed" in panel.ui.statusLabel.text
    panel.ui.temperature_cEdit.text = "384"
    assert not panel.ui.applyButton.enabled
    panel.ui.temperature_cEdit.text = ""
    panel.ui.applyButton.click()
    try:
        settle()
    except Exception as error:
        print("said:", error)
    panel.exit()
    panel.cleanup()
"""


def test_the_panel_opens_and_says_what_is_missing() -> None:
    environment = dict(os.environ, QT_QPA_PLATFORM="offscreen", PYTHONPATH=str(HERE))
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "said: The Python package pydantic is missing" in done.stdout
