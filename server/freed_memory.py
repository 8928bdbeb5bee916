"""Memory of a serving process: what was freed goes back to the system, and what stays is looked through no more."""

from __future__ import annotations

import ctypes
import gc
import os


def return_freed_memory() -> None:
    """To the system, where the C library is glibc: it keeps most of it otherwise. Takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def keep_what_is_loaded() -> None:
    """Takes all that lives now for permanent.

    Modules and models are some 50,000 objects. Python's garbage collector would look through them again and again, some
    20 ms each time, during which nothing else runs: that is what the slowest requests of a busy server waited for.
    """
    gc.collect()
    gc.freeze()
