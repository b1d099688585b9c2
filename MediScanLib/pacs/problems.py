"""What can go wrong between this node and the archives around it."""

from __future__ import annotations

from ..errors import MediScanError


class PacsError(MediScanError):
    """Something about an archive, or about the folder of this node.

    Messages name neither patients nor UIDs, so that they can be logged.
    """

    code = "pacs"


class NotForUsError(PacsError):
    """What came in is left alone: it is no image, or a result of MediScan itself."""

    code = "left_alone"


class DiskFullError(PacsError):
    """There is no room for what came in."""

    code = "disk_full"


class PeerError(PacsError):
    """An archive did not take a result, or did not give a study.

    Args:
        message: What it did.
        code: Of the error.
        unreachable: It was not reached at all, so that nothing else will reach it now either.
        uncertain: It may have taken what was sent last.
    """

    code = "peer"

    def __init__(
        self, message: str, *, code: str | None = None, unreachable: bool = False, uncertain: bool = False
    ) -> None:
        super().__init__(message, code=code)
        self.unreachable = unreachable
        self.uncertain = uncertain
