"""Python packages that the application has to install before the first run. Works in 3D Slicer only."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import slicer

from ..errors import CancelledError, MediScanError

TORCH_REQUIREMENT = ">=2.10"


def installed(requirements: Path) -> bool:
    """True where PyTorch and every package of a requirements file are there in an acceptable version."""
    import slicer.packaging

    return torch_is_right() and slicer.packaging.pip_check(slicer.packaging.load_requirements(requirements))


def torch_is_right() -> bool:
    """True where PyTorch is installed in an acceptable version."""
    import slicer.packaging

    return slicer.packaging.pip_check(f"torch{TORCH_REQUIREMENT}")


def message(requirements: Path) -> str:
    """What the user should know about missing packages; empty where there are none."""
    if installed(requirements):
        return ""
    if not torch_is_right() and (_torch_version() or not hasattr(slicer.modules, "pytorchutils")):
        return _torch_remedy()
    return "Apply installs the Python packages that are missing. It asks first."


def install(requirements: Path) -> None:
    """Install what is missing after asking the user. In testing mode nothing is installed.

    PyTorch comes through the PyTorch extension, which chooses the build that fits the graphics processor.

    Raises:
        MediScanError: PyTorch is missing or too old and cannot be installed from here.
        CancelledError: The user declined.
        subprocess.CalledProcessError: The installation failed.
    """
    import slicer.packaging

    if slicer.app.testingEnabled() or installed(requirements):
        return
    if not torch_is_right():
        _install_torch()
    try:
        slicer.packaging.pip_ensure(slicer.packaging.load_requirements(requirements), requester="MediScan")
    except RuntimeError as error:
        raise CancelledError("The packages were not installed, so the image was not looked at.") from error


def _install_torch() -> None:
    if _torch_version():
        raise MediScanError(_torch_remedy())
    try:
        import PyTorchUtils  # type: ignore[import-not-found]
    except ModuleNotFoundError:
        raise MediScanError(_torch_remedy()) from None
    torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
        askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT
    )
    if torch is None:
        raise CancelledError("PyTorch was not installed, so the image was not looked at.")


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
