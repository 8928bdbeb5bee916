"""Gives memory that was freed back to the system, where the C library is glibc: it keeps most of it otherwise."""

from __future__ import annotations

import ctypes
import os


def return_freed_memory() -> None:
    """Takes some milliseconds."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
