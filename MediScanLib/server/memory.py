"""How the process treats memory that was freed."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT = 512 * 1024**2
_LARGEST = 256 * 1024**2


def keep_freed_memory() -> bool:
    """Keep large blocks for the next pass through the network; False where the system has no such setting.

    By itself glibc gives blocks of more than 32 MB back to the system at once, and to threads but the first one heaps
    of no more than 64 MB. A pass of eight images takes and frees dozens of larger blocks, and fetching them anew, page
    by page, takes longer than what a batch saves. Up to 512 MiB stay with the process now. For the start of a process:
    threads that allocated before keep their heaps (mallopt(3)).
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    wanted = {_M_ARENA_MAX: 1, _M_MMAP_THRESHOLD: _LARGEST, _M_TRIM_THRESHOLD: _KEPT}
    done = [mallopt(name, value) for name, value in wanted.items()]  # each of them, whatever the others say
    return all(done)
