"""`pairwire profile`: where a model's time goes, against what the processor can do."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from . import arguments, records
from .exits import BadInput

if TYPE_CHECKING:
    from pairwire.server.engine.batching.buckets import Bucket
    from pairwire.server.profiling.peaks import Peaks
    from pairwire.server.profiling.shapes import OperatorTime, ShapeProfile
    from pairwire.server.profiling.texts import TextProfile
    from pairwire.server.profiling.timers import Timers

DETAILS = """

Measures the fastest matrix products of this processor, then the model: batches of some shapes on one thread, by
operator; and the engine, from text to score, by stage. Operations are counted as the model was trained, nothing
pruned or padded: tokens x layers x (24 h^2 + 4 S h) for a BERT. Kernels are told at their fastest, in CPU time, so that
other work on the machine disturbs little; figures in wall time say so. Needs the package onnx."""

SHAPES = ((18, 28), (4, 128), (1, 384))
"""Rows and tokens: sentences, paragraphs, a long passage."""


def add_parser(subparsers: arguments.Subparsers[argparse.ArgumentParser]) -> None:
    """Registers the command."""
    parser = arguments.add_command(subparsers, "profile", "measure where a model's time goes", DETAILS)
    parser.add_argument("directory", metavar="DIR", type=Path, help="a directory that `pairwire export` wrote")
    parser.add_argument("--variant", metavar="NAME", default="", help="(default: the best of the package for the CPU)")
    parser.add_argument(
        "--shapes",
        metavar="ROWSxTOKENS,...",
        help=f"batches to profile, and no texts (default: {','.join(f'{rows}x{length}' for rows, length in SHAPES)}, "
        "and texts)",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        type=Path,
        help="texts to run, and no shapes: what `pairwire score` or `embed` reads (default: built-in ones, and shapes)",
    )
    parser.add_argument("--workers", metavar="N", type=arguments.count, default=0, help="(default: one a usable CPU)")
    parser.add_argument("--repeats", metavar="N", type=arguments.count, default=15, help="of each shape (default: 15)")
    arguments.add_json(parser, "print one object: peaks, work, shapes, texts")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measures and prints."""
    from pairwire.server.cpus import usable_cpus
    from pairwire.server.engine import EngineConfig
    from pairwire.server.engine.batching.buckets import Bucket
    from pairwire.server.package import read_package
    from pairwire.server.runtime.wheels import check_wheels

    check_wheels()
    from pairwire.server.profiling.peaks import measure_peaks
    from pairwire.server.profiling.shapes import profile_shapes
    from pairwire.server.profiling.texts import profile_texts
    from pairwire.server.runtime.onnx_cpu import CpuOptions

    from . import output

    package = read_package(args.directory)
    if package.manifest.HasField("empty_token_id"):
        raise BadInput(
            f"{args.directory}: a table of vectors has no layers whose work could be counted; `pairwire tune` measures"
            " what batches of it take"
        )
    variant = package.variant(args.variant)
    graph = package.graph_file(variant)
    longest = package.manifest.max_length
    wanted = parse_shapes(args.shapes, longest) if args.shapes else default_shapes(longest)
    inputs = _inputs(args, package.manifest.kind) if args.data or not args.shapes else []
    config = EngineConfig(variant=variant.name, workers=args.workers)
    timers = _timers()
    peaks = measure_peaks(timers, cores=min(config.worker_count(), usable_cpus()))
    options = CpuOptions(disabled_optimizers=tuple(variant.disabled_optimizers))
    work, shapes = profile_shapes(
        graph, options, [Bucket(rows, length) for rows, length in wanted], timers, repeats=args.repeats
    )
    texts = profile_texts(args.directory, config, inputs, work, timers, repeats=3) if inputs else None
    int8 = shapes[0].int8
    if args.data and not args.shapes:
        shapes = []  # they told what a token is worth
    if args.json:
        found = {"directory": str(args.directory), "variant": variant.name, "peaks": asdict(peaks)}
        told = {"work": asdict(work), "shapes": [asdict(shape) for shape in shapes], "texts": texts and asdict(texts)}
        print(output.json_line(found | told))
        return 0
    print(f"{package.name}, {variant.name}: {work.layers} layers, {work.weights / 1e6:.4g} M weights a token")
    print(f"\n{_peaks(peaks)}")
    if shapes:
        print(f"\n{_shapes(shapes, peaks)}")
    for shape in shapes:
        print(f"\n{_name(shape.bucket)} by operator\n{_operators(shape, peaks)}")
    if texts:
        print(f"\n{_texts(texts, peaks, int8=int8)}")
    return 0


def parse_shapes(text: str, longest: int) -> list[tuple[int, int]]:
    """``4x128,1x384`` -> rows and tokens.

    Raises:
        BadInput: something else, or more tokens than the model reads.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,5})", part.strip())
        if match is None:
            raise BadInput(f"--shapes: {part.strip()!r} is no shape; expected rows x tokens, as in 4x128,1x384")
        rows, length = int(match[1]), int(match[2])
        if length > longest:
            raise BadInput(f"--shapes: {part.strip()!r} has rows of {length} tokens; the model reads at most {longest}")
        found.append((rows, length))
    return found


def default_shapes(longest: int) -> list[tuple[int, int]]:
    """Of ``SHAPES`` what the model can read, or else its longest row."""
    return [shape for shape in SHAPES if shape[1] <= longest] or [(1, longest)]


def _inputs(args: argparse.Namespace, kind: int) -> list[tuple[str, ...]]:
    """Pairs for a cross-encoder, texts of one each for a bi-encoder."""
    from pairwire.v1 import manifest_pb2

    pairs = kind == manifest_pb2.MODEL_KIND_CROSS_ENCODER
    if args.data is None:
        return _builtin(pairs=pairs)
    found: list[tuple[str, ...]]
    if pairs:
        found = list(records.pairs(args.data, None).records)
    else:
        found = [(text,) for text in records.texts(args.data, None).records]
    if not found:
        raise BadInput(f"{args.data}: empty; give at least one line")
    return found


def _builtin(*, pairs: bool) -> list[tuple[str, ...]]:
    """Each query of the exporter's texts with the passages of a few topics, or every text alone."""
    lines = (resources.files("pairwire.export") / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    topics = [json.loads(line) for line in lines]
    if not pairs:
        return [(topic[part],) for topic in topics for part in ("query", "passage", "near")]
    near = [topics[at:] + topics[:at] for at in range(_TOPICS)]
    return [
        (topic["query"], other[part])
        for row in zip(*near, strict=True)
        for topic in row[:1]
        for other in row
        for part in ("passage", "near")
    ]


_TOPICS = 8
"""This many topics' passages are paired with each query."""


def _timers() -> Timers:
    import time

    from pairwire.server.profiling.timers import Timers

    return Timers(
        wall=time.perf_counter,
        thread=time.thread_time,
        process=time.process_time,
        thread_of=lambda ident: time.clock_gettime(time.pthread_getcpuclockid(ident)),
    )


def _peaks(peaks: Peaks) -> str:
    from . import output

    rows = [
        (name, _giga(peak.one_thread), _giga(peak.all_cores))
        for name, peak in (("int8", peaks.int8), ("fp32", peaks.fp32))
    ]
    head = ("fastest products, GF/s", "one thread", f"{peaks.cores} at once")
    return output.table(head, rows, right=[1, 2])


def _shapes(shapes: Sequence[ShapeProfile], peaks: Peaks) -> str:
    from . import output

    rows = []
    for shape in shapes:
        peak = (peaks.int8 if shape.int8 else peaks.fp32).one_thread
        rows.append(
            (
                _name(shape.bucket),
                f"{shape.cpu_s * 1e3:.2f}",
                f"{shape.cpu_median_s * 1e3:.2f}",
                f"{shape.wall_median_s * 1e3:.2f}",
                f"{shape.cpu_s * 1e6 / shape.bucket.tokens:.1f}",
                _giga(shape.useful / shape.cpu_s),
                f"{shape.useful / shape.cpu_s / peak:.0%} of {'int8' if shape.int8 else 'fp32'}",
                f"{shape.executed / shape.useful:.2f}",
            )
        )
    head = ("one thread", "CPU ms", "median", "wall ms", "us/token", "useful GF/s", "of peak", "executed/useful")
    return output.table(head, rows, right=range(1, 8))


def _operators(shape: ShapeProfile, peaks: Peaks) -> str:
    from . import output

    rows = [_operator(found, shape, peaks) for found in shape.operators if found.seconds >= 0.001 * shape.cpu_s]
    seconds = sum(found.seconds for found in shape.operators if found.seconds < 0.001 * shape.cpu_s)
    calls = sum(found.calls for found in shape.operators if found.seconds < 0.001 * shape.cpu_s)
    rows.append(("(others)", f"{seconds * 1e3:.3f}", _share(seconds, shape), str(calls), "", "", "", ""))
    between = max(0.0, shape.cpu_s - shape.kernels_s)
    rows.append(("(between kernels)", f"{between * 1e3:.3f}", _share(between, shape), "", "", "", "", ""))
    head = ("operator", "ms", "share", "calls", "GF/s", "of peak", "ns/element", "GB/s")
    return output.table(head, rows, right=range(1, 8))


def _operator(found: OperatorTime, shape: ShapeProfile, peaks: Peaks) -> tuple[str, ...]:
    facts = (found.operator, f"{found.seconds * 1e3:.3f}", _share(found.seconds, shape), str(found.calls))
    if found.operations:
        rate = found.operations / max(found.seconds, 1e-9)
        peak = peaks.int8 if found.int8 else peaks.fp32
        return (*facts, _giga(rate), f"{rate / peak.one_thread:.0%} of {'int8' if found.int8 else 'fp32'}", "", "")
    nanoseconds = f"{found.seconds * 1e9 / found.elements:.2f}" if found.elements else ""
    return (*facts, "", "", nanoseconds, f"{found.bytes / max(found.seconds, 1e-9) / 1e9:.0f}")


def _texts(texts: TextProfile, peaks: Peaks, *, int8: bool) -> str:
    from . import output

    peak = peaks.int8 if int8 else peaks.fp32
    name = "int8" if int8 else "fp32"
    wall, worked = texts.useful / texts.wall_s, texts.useful / texts.worked_s
    lines = [
        f"text in, results out: {texts.inputs} inputs in {texts.wall_s:.3f} s of wall time, {texts.workers} workers, "
        f"{texts.batches} batches of {texts.computed_tokens / texts.batches:.0f} tokens",
        f"  {texts.inputs / texts.wall_s:.1f} inputs/s, {texts.useful_tokens / texts.wall_s:.0f} useful tokens/s, "
        f"padding {texts.padding_share:.1%} of computed tokens",
        f"  useful {_giga(wall)} GF/s by wall time, {wall / peak.all_cores:.0%} of the {name} peak of the cores "
        f"({texts.cores}); {_giga(worked)} a second of CPU, {worked * texts.cores / peak.all_cores:.0%} of it",
    ]
    stages = (
        ("kernels, but for padding", texts.useful_kernels_s),
        ("kernels, padding", texts.padding_s),
        ("tokenise", texts.tokenise_s),
        ("event loop", texts.loop_s),
        ("plan", texts.plan_s),
        ("assemble batches", texts.assemble_s),
        ("locks, queue, results", texts.rest_s),
        ("idle, or others had the cores", texts.idle_s),
    )
    worked_s = texts.worked_s
    cores = worked_s + texts.idle_s
    rows = [
        (
            stage,
            f"{seconds:.3f}",
            f"{seconds / cores:.1%}",
            "" if seconds is stages[-1][1] else f"{seconds / worked_s:.1%}",
        )
        for stage, seconds in stages
    ]
    return "\n".join(
        [*lines, "", output.table(("stage", "CPU s", "of the cores", "of the work"), rows, right=[1, 2, 3])]
    )


def _share(seconds: float, shape: ShapeProfile) -> str:
    return f"{seconds / shape.cpu_s:.1%}"


def _name(bucket: Bucket) -> str:
    return f"{bucket.rows} x {bucket.length}"


def _giga(rate: float) -> str:
    return f"{rate / 1e9:.0f}" if rate >= 10e9 else f"{rate / 1e9:.2g}"
