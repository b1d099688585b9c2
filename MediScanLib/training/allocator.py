"""Freed memory stays with the process, where the C library would hand every large block back."""

from __future__ import annotations

import contextlib
import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of the GNU C library
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Stop glibc from returning the memory of every large tensor to the system as soon as it is freed.

    A training step on a CPU frees and asks again for gigabytes; fetching them page by page from the system takes up to
    a third of its time. Does nothing elsewhere than on Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
