"""Which packages are asked for, and what the user is told, with stand-ins for the application's installers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import slicer
import slicer.util
from packaging.requirements import Requirement

from MediScanLib.errors import CancelledError, MediScanError
from MediScanLib.scene import packages

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path("requirements.txt")


class Slicer:
    """The application with some packages, its `slicer.packaging`, and perhaps the PyTorch extension."""

    def __init__(self, monkeypatch, *, present=(), torch=None, extension=True, agree=True, testing=False):
        self.present, self.agree, self.calls = set(present), agree, []
        self.asked, self.failure = [], None
        self.torch = torch
        packaging = ModuleType("slicer.packaging")
        packaging.load_requirements = lambda path: ["monai"]
        packaging.pip_check = self.pip_check
        packaging.pip_ensure = self.pip_ensure
        monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
        monkeypatch.setattr(slicer, "packaging", packaging, raising=False)
        monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", self.confirm)
        monkeypatch.setattr(slicer, "app", SimpleNamespace(testingEnabled=lambda: testing), raising=False)
        modules = SimpleNamespace(pytorchutils=object()) if extension else SimpleNamespace()
        monkeypatch.setattr(slicer, "modules", modules, raising=False)
        monkeypatch.setattr(packages, "_torch_version", lambda: self.torch or "")
        if extension:
            utils = ModuleType("PyTorchUtils")
            utils.PyTorchUtilsLogic = lambda: SimpleNamespace(installTorch=self.install_torch)
            monkeypatch.setitem(sys.modules, "PyTorchUtils", utils)
        else:
            monkeypatch.setitem(sys.modules, "PyTorchUtils", None)

    def pip_check(self, requirement):
        if requirement == "torch>=2.10":
            return self.torch == "2.15"
        if isinstance(requirement, str):
            return requirement in self.present
        return set(requirement) <= self.present

    def confirm(self, text, windowTitle=None):  # noqa: N803 - Slicer's names
        self.asked.append(text)
        return self.agree

    def pip_ensure(self, requirements, prompt_install, requester):
        assert self.asked, "nothing may be installed without asking"
        assert not prompt_install, "one question is enough"
        if self.failure:
            raise self.failure
        self.calls.append((tuple(requirements), requester))
        self.present |= set(requirements)

    def install_torch(self, askConfirmation, torchVersionRequirement):  # noqa: N803 - the extension's names
        assert self.asked, "nothing may be installed without asking"
        assert not askConfirmation, "one question is enough"
        assert torchVersionRequirement == ">=2.10"
        self.calls.append("torch")
        self.torch = "2.15"
        return object()


def test_nothing_to_do(monkeypatch):
    application = Slicer(monkeypatch, present=["monai"], torch="2.15")
    assert packages.installed(REQUIREMENTS)
    assert packages.message(REQUIREMENTS) == ""
    packages.install(REQUIREMENTS)
    assert application.calls == []


def test_torch_comes_first(monkeypatch):
    """MONAI would pull in a PyTorch that does not fit the graphics processor."""
    application = Slicer(monkeypatch)
    assert "asks first" in packages.message(REQUIREMENTS)
    packages.install(REQUIREMENTS)
    assert application.calls == ["torch", (("monai",), "MediScan")]
    (text,) = application.asked
    assert "PyTorch >=2.10: about 200 MB" in text
    assert "monai: about 2 MB" in text


def test_every_package_has_a_size():
    lines = (ROOT / "MediScan/Resources/requirements.txt").read_text(encoding="utf-8").splitlines()
    names = {Requirement(line).name.lower() for line in lines if line and not line.startswith("#")}
    assert set(packages.SIZES) == names | {"torch"}


@pytest.mark.parametrize("failure", [subprocess.CalledProcessError(1, "pip"), OSError(28, "No space left on device")])
def test_a_failure_is_told_and_the_next_time_goes_on(monkeypatch, failure):
    application = Slicer(monkeypatch)
    application.failure = failure
    with pytest.raises(MediScanError, match="press Apply again"):
        packages.install(REQUIREMENTS)
    assert application.calls == ["torch"]
    application.failure = None
    packages.install(REQUIREMENTS)
    assert application.calls == ["torch", (("monai",), "MediScan")]
    assert "PyTorch" not in application.asked[1], "only what is still missing is asked for"


@pytest.mark.parametrize("torch", [None, "2.15"])
def test_declined(monkeypatch, torch):
    application = Slicer(monkeypatch, torch=torch, agree=False)
    with pytest.raises(CancelledError):
        packages.install(REQUIREMENTS)
    assert application.calls == []
    assert len(application.asked) == 1


def test_without_the_pytorch_extension(monkeypatch):
    application = Slicer(monkeypatch, extension=False)
    assert "Extensions Manager" in packages.message(REQUIREMENTS)
    with pytest.raises(MediScanError, match="Extensions Manager"):
        packages.install(REQUIREMENTS)
    assert application.calls == []


def test_old_torch(monkeypatch):
    application = Slicer(monkeypatch, torch="2.1")
    assert "2.1 is installed" in packages.message(REQUIREMENTS)
    with pytest.raises(MediScanError, match="Uninstall it"):
        packages.install(REQUIREMENTS)
    assert application.calls == []


def test_testing_mode_installs_nothing(monkeypatch):
    application = Slicer(monkeypatch, testing=True)
    packages.install(REQUIREMENTS)
    assert application.calls == []
