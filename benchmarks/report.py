"""What every benchmark prints: the machine, the length histogram of its data, one table; and the same as JSON rows."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np

Row = Mapping[str, object]

PACKAGES = (
    "pairwire",
    "onnxruntime",
    "tokenizers",
    "grpcio",
    "sentence-transformers",
    "transformers",
    "torch",
    "openvino",
)


def machine() -> dict[str, object]:
    """Processor, usable CPUs, and the versions of what takes part."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor,
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def print_machine() -> None:
    """One paragraph on stdout."""
    facts = machine()
    versions = facts["versions"]
    assert isinstance(versions, dict)
    print(f"{facts['date']}  {facts['processor']}, {facts['cpus']} CPUs, Python {facts['python']}")
    print("  " + ", ".join(f"{name} {version}" for name, version in versions.items()))


def histogram(lengths: np.ndarray) -> str:
    """One line: how many rows there are of which length in tokens, and the percentiles."""
    edges = [0, 16, 32, 64, 128, 192, 256, 384, 512, np.inf]
    counts, _ = np.histogram(lengths, bins=edges)
    shares = "  ".join(
        f"{f'<{edges[at + 1]:.0f}' if np.isfinite(edges[at + 1]) else '>=512'}: {count / len(lengths):.0%}"
        for at, count in enumerate(counts)
        if count
    )
    p10, p50, p90 = np.percentile(lengths, [10, 50, 90])
    spread = f"p10 {p10:.0f}, p50 {p50:.0f}, p90 {p90:.0f}"
    return f"{len(lengths)} rows, {lengths.mean():.0f} tokens on average ({spread})  {shares}"


def print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Rows as an aligned table; numbers to four significant digits, absent values as '-'."""
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[at]) for line in cells)) for at, column in enumerate(columns)]
    print("  ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True)))
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    sys.stdout.flush()


def write_json(path: Path | None, rows: Sequence[Row]) -> None:
    """Flat rows, each with the machine's facts; nothing where there is no path."""
    if path is None:
        return
    facts = machine()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{**row, "machine": facts} for row in rows], indent=1) + "\n", encoding="utf-8")
    print(f"written: {path}")


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    return str(value)
