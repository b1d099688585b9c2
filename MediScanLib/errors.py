"""Errors that say what was wrong with what, and what to do.

Every error that MediScan raises on purpose derives from `MediScanError` and carries a short, stable
`code` for programs beside its message for people. Faces (command line, panel, server) show `str(error)`
and store `error.code`.
"""

from __future__ import annotations


class MediScanError(Exception):
    """Base of all errors that MediScan raises on purpose.

    Args:
        message: What was wrong with what, and what to do about it.
        code: Stable machine-readable name; the class default where omitted.
    """

    code = "error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class ReadError(MediScanError):
    """A file could not be read as a medical image.

    Args:
        source: The file or folder, as the user named it.
        problem: What is wrong with it.
        remedy: What the user can do.
        code: One of `ReadError.CODES`.
    """

    code = "unreadable"
    CODES = (
        "not_found",  # nothing at that path
        "permission_denied",
        "not_an_image",  # neither an image nor a supported format
        "empty",  # zero bytes, zero rows, an empty folder
        "truncated",
        "corrupt",
        "no_pixel_data",  # a DICOM object that holds no image
        "size_mismatch",  # the header promises another amount of pixels than there is
        "too_large",  # more memory than allowed, decompression bombs
        "too_deep",  # nesting beyond what an honest file has
        "unsupported",  # a valid file whose kind or compression is not handled
        "several_series",
        "geometry",  # slices that cannot form an undistorted volume
        "not_finite",  # nothing but NaN or infinity
        "symlink_loop",
    )

    def __init__(self, source: object, problem: str, remedy: str, *, code: str = "unreadable") -> None:
        if code not in (*self.CODES, "unreadable"):
            raise ValueError(f"unknown ReadError code {code!r}")
        super().__init__(f"{source}: {problem}. {remedy}", code=code)
        self.source = str(source)
        self.problem = problem
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:  # errors cross process borders
        return _make_read_error, (self.source, self.problem, self.remedy, self.code)


def _make_read_error(source: str, problem: str, remedy: str, code: str) -> ReadError:
    return ReadError(source, problem, remedy, code=code)


class ClinicalError(MediScanError):
    """A clinical value, field name or file is not acceptable."""

    code = "clinical"


class ConfigError(MediScanError):
    """A configuration key or value is not acceptable."""

    code = "config"


class BundleError(MediScanError):
    """A model bundle is missing, damaged, tampered with or of another format."""

    code = "bundle"


class DeviceError(MediScanError):
    """The requested compute device is not there or cannot do the work."""

    code = "device"


class UsageError(MediScanError):
    """The caller asked for something that does not exist, such as a slice beyond the last."""

    code = "usage"


class DataError(MediScanError):
    """A training manifest or one of its rows is not acceptable."""

    code = "data"


class CancelledError(MediScanError):
    """The user cancelled the run."""

    code = "cancelled"


class CheckpointError(MediScanError):
    """A training checkpoint is missing, damaged, or belongs to another run."""

    code = "checkpoint"


class EngineError(MediScanError):
    """The process or the server that makes predictions is gone, or never came up."""

    code = "engine"


class ServerError(EngineError):
    """A server that makes predictions cannot be used, or did not do what was asked of it."""

    code = "server"
    CODES = (
        "server",  # it failed, or its answer cannot be understood
        "server_unreachable",  # nobody there, or the way to it is barred
        "server_tls",  # it cannot prove who it is
        "server_timeout",  # silent for too long
        "server_token",  # no token, or a wrong one
        "server_role",  # the token may not do this
        "server_busy",  # its queue stayed full
        "server_version",  # too old or too new
        "server_model",  # it does not have the model
    )


class WriteError(MediScanError):
    """A file cannot be written; what was there before is untouched."""

    code = "write_failed"


class ReportError(MediScanError):
    """A prediction cannot be put into the form that was asked for."""

    code = "report"
    CODES = (
        "report",
        "not_dicom",  # the image came from a file without a DICOM header
        "missing_uid",  # its header lacks what a result must refer to
        "source_mismatch",  # the files are not those that were predicted
        "no_highdicom",  # the optional package is not installed
    )
