"""Python packages that the application has to install before the first run. Works in 3D Slicer only."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import slicer

from ..errors import CancelledError, MediScanError

TORCH_REQUIREMENT = ">=2.10"
DICOM_REQUIREMENT = "highdicom>=0.28"

SIZES = {
    "torch": "about 200 MB, with support for graphics processors up to 3 GB",
    "monai": "about 2 MB",
    "pydantic": "about 3 MB",
    "pyyaml": "about 1 MB",
    "safetensors": "about 1 MB",
}
"""What has to be downloaded for each package, by its name in lower case."""


def installed(requirements: Path, *, torch: bool = True) -> bool:
    """True where every package of a requirements file is there in an acceptable version, and PyTorch if wanted."""
    import slicer.packaging

    return (torch_is_right() or not torch) and slicer.packaging.pip_check(
        slicer.packaging.load_requirements(requirements)
    )


def torch_is_right() -> bool:
    """True where PyTorch is installed in an acceptable version."""
    import slicer.packaging

    return slicer.packaging.pip_check(f"torch{TORCH_REQUIREMENT}")


def message(requirements: Path, *, torch: bool = True) -> str:
    """What the user should know about missing packages; empty where there are none."""
    if installed(requirements, torch=torch):
        return ""
    if torch and not torch_is_right() and (_torch_version() or not hasattr(slicer.modules, "pytorchutils")):
        return _torch_remedy()
    return "Apply installs the Python packages that are missing. It asks first."


def install(requirements: Path, *, torch: bool = True) -> None:
    """Install what is missing, after one question that says what and how large. In testing mode nothing is installed.

    PyTorch comes through the PyTorch extension, which chooses the build that fits the graphics processor. What was
    installed before a failure or a restart stays; the next call goes on from there.

    Raises:
        MediScanError: PyTorch is missing or too old and cannot be installed from here, or the installation failed.
        CancelledError: The user declined.
    """
    import slicer.packaging

    if slicer.app.testingEnabled() or installed(requirements, torch=torch):
        return
    needs_torch = torch and not torch_is_right()
    installer = _torch_installer() if needs_torch else None
    if not slicer.util.confirmOkCancelDisplay(question(requirements, torch=torch), windowTitle="MediScan"):
        raise CancelledError("The packages were not installed, so the image was not looked at.")
    try:
        if installer is not None:
            installer.installTorch(askConfirmation=False, torchVersionRequirement=TORCH_REQUIREMENT)
        slicer.packaging.pip_ensure(
            slicer.packaging.load_requirements(requirements), prompt_install=False, requester="MediScan"
        )
    except (subprocess.CalledProcessError, OSError) as error:
        raise MediScanError(
            f"The packages could not be installed ({error}). Check the connection, the proxy and the free disk space "
            "and press Apply again: it goes on with what is still missing. Without a connection, see 'Without "
            "internet' in the user guide."
        ) from error


def install_dicom() -> None:
    """Install what DICOM results need beside the rest, after a question. In testing mode nothing is installed.

    Raises:
        MediScanError: The installation failed.
        CancelledError: The user declined.
    """
    import slicer.packaging

    if slicer.app.testingEnabled() or slicer.packaging.pip_check(DICOM_REQUIREMENT):
        return
    question = "DICOM results need the Python package highdicom (about 2 MB). Install it now?"
    if not slicer.util.confirmOkCancelDisplay(question, windowTitle="MediScan"):
        raise CancelledError("highdicom was not installed, so no DICOM results were written.")
    try:
        slicer.packaging.pip_ensure([DICOM_REQUIREMENT], prompt_install=False, requester="MediScan")
    except (subprocess.CalledProcessError, OSError) as error:
        raise MediScanError(
            f"highdicom could not be installed ({error}). Check the connection and export again."
        ) from error


def question(requirements: Path, *, torch: bool = True) -> str:
    """What will be installed, and how large it is."""
    lines = [] if torch_is_right() or not torch else [f"PyTorch {TORCH_REQUIREMENT}: {SIZES['torch']}"]
    lines += [f"{requirement}: {SIZES[_name(requirement)]}" for requirement in _missing(requirements)]
    return (
        "MediScan needs these Python packages, which will be downloaded from the internet and installed into "
        "Slicer's Python:\n\n" + "\n".join(lines) + "\n\nInstall them now? It takes some minutes."
    )


def _missing(requirements: Path) -> list[str]:
    import slicer.packaging

    wanted = slicer.packaging.load_requirements(requirements)
    return [str(requirement) for requirement in wanted if not slicer.packaging.pip_check(requirement)]


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return found[0].lower() if found else requirement


def _torch_installer() -> Any:
    if _torch_version():
        raise MediScanError(_torch_remedy())
    try:
        import PyTorchUtils  # type: ignore[import-not-found]
    except ModuleNotFoundError:
        raise MediScanError(_torch_remedy()) from None
    return PyTorchUtils.PyTorchUtilsLogic()


def _torch_remedy() -> str:
    if _torch_version():
        return (
            f"PyTorch {_torch_version()} is installed, MediScan needs {TORCH_REQUIREMENT}. Uninstall it in the "
            "PyTorch module, restart Slicer and press Apply."
        )
    return (
        "PyTorch is not installed. Install the PyTorch extension in the Extensions Manager, restart Slicer and press "
        "Apply."
    )


def _torch_version() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""
