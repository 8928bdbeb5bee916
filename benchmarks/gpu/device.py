"""What the device can do: torch's own matrix product is the yardstick."""

from __future__ import annotations

import numpy as np

SIZE = 8192
"""Rows and columns of the product that is the peak."""


def peak_flops(repeats: int = 15) -> float:
    """Operations a second of torch's float16 product of two random 8192 x 8192 matrices, the median of ``repeats``.

    0 where torch or its CUDA build is not there.
    """
    try:
        import torch
    except ImportError:
        return 0.0
    if not torch.cuda.is_available():
        return 0.0
    left, right = (torch.randn(SIZE, SIZE, device="cuda", dtype=torch.float16) for _ in range(2))
    times = []
    for _ in range(repeats + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        left @ right
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return 2 * SIZE**3 / float(np.median(times[3:]))
