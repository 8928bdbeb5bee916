"""`pairwire export`: a thin skin over `export_checkpoint`. Registering it loads neither torch nor transformers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.outputs.activation import Activation

from .config import SPEARMAN_LIMIT, TUNE_BUDGET_S, ExportConfig, Precision
from .errors import ExportBroken, ExportError, ParityFailed

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_PARITY = 3
_CODES = {ExportBroken: EXIT_FAILED, ExportError: EXIT_BAD_INPUT, ParityFailed: EXIT_PARITY}

_DESCRIPTION = """\
Turns a checkpoint into a model package: optimised ONNX graphs, the tokenizer, and a report that shows how closely the
graphs score like sentence-transformers on the original checkpoint. Nothing is written unless everything went well.
"""
_EPILOG = """\
precisions:
  fp32          as exact as the checkpoint
  int8          8 bits, activation ranges fixed at export by calibration texts: about 3 times faster than fp32 on a CPU
                with VNNI, a quarter of the size; the score of a pair does not depend on what it is batched with
  int8-dynamic  8 bits, ranges taken from each batch. WARNING: the score of a pair then moves with its batch-mates and
                with padding, by up to 0.2 in probability on a MiniLM cross-encoder. Kept for comparison with other
                tools.

exit codes:
  0  the package was written
  1  a library of the [export] or [cpu] extra is missing, or Pairwire failed
  2  bad input: the checkpoint, an option, a data file, or the disk that the package or its temporary files go to;
     stderr says which
  3  a variant does not score like the checkpoint; no package was written
  130  interrupted; nothing was left behind

examples:
  pairwire export cross-encoder/ms-marco-MiniLM-L6-v2 -o models/reranker
  pairwire export ./my-cross-encoder -o models/mine --precision int8 --precision fp32 --parity-data pairs.jsonl
"""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Registers the subcommand; ``run`` of the parsed arguments takes them and returns the exit code."""
    parser = subparsers.add_parser(
        "export",
        help="turn a checkpoint into a model package",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="local directory or hub id of a cross-encoder, bi-encoder or PEFT adapter",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="package directory to make")
    parser.add_argument(
        "--precision",
        action="append",
        choices=[precision.value for precision in Precision],
        help="a variant of the package; repeatable, best first (default: int8)",
    )
    parser.add_argument(
        "--max-length", type=int, metavar="N", help="most tokens of an input (default: the checkpoint's)"
    )
    parser.add_argument("--name", help="the name under which it will be served (default: the output directory's)")
    parser.add_argument("--force", action="store_true", help="replace an existing package")
    parser.add_argument(
        "--no-tune",
        action="store_true",
        help="make graphs by the default recipe, instead of measuring which one is fastest on this machine",
    )
    parser.add_argument(
        "--tune-budget-s",
        type=float,
        default=TUNE_BUDGET_S,
        metavar="S",
        help="most seconds of that measuring for each variant (default: %(default)g)",
    )
    parser.add_argument(
        "--no-memory-check",
        action="store_true",
        help="start even where the export is estimated to need more memory than there is",
    )
    checkpoint = parser.add_argument_group("checkpoint")
    checkpoint.add_argument(
        "--kind", choices=[kind.value for kind in ModelKind], help="default: found out from its files"
    )
    checkpoint.add_argument("--revision", help="hub revision: branch, tag or commit")
    checkpoint.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that the checkpoint brings (default: never)"
    )
    score = parser.add_argument_group("score of a cross-encoder: activation(SCALE * logit + BIAS)")
    score.add_argument(
        "--activation",
        choices=[activation.value for activation in Activation],
        help="what makes scores of logits (default: the checkpoint's own)",
    )
    score.add_argument(
        "--score-scale",
        type=float,
        metavar="SCALE",
        help="e.g. 0.2 with --activation sigmoid for zerank-2, whose authors say sigmoid(logit / 5) (default: 1)",
    )
    score.add_argument("--score-bias", type=float, metavar="BIAS", help="added after the scale (default: 0)")
    data = parser.add_argument_group("calibration and parity")
    data.add_argument(
        "--calibration-data",
        type=Path,
        metavar="FILE",
        help='JSON lines like the texts you will serve, in place of the built-in ones: {"first": ..., "second": ...}'
        ' for pairs, {"text": ...} for bi-encoders',
    )
    data.add_argument(
        "--parity-data", type=Path, metavar="FILE", help="JSON lines that are compared besides the built-in texts"
    )
    data.add_argument(
        "--parity-threshold",
        type=float,
        metavar="RHO",
        help=f"lowest Spearman correlation of an int8 variant with the checkpoint (default: {SPEARMAN_LIMIT})",
    )
    data.add_argument(
        "--max-diff",
        type=float,
        metavar="X",
        help="largest difference of an int8 variant's score or vector component from the checkpoint's (default: any)",
    )
    data.add_argument(
        "--sensitivity",
        action="store_true",
        help="measure what each layer of an int8 variant costs; the table goes into PARITY.md",
    )
    data.add_argument(
        "--keep-float",
        type=int,
        default=0,
        metavar="N",
        help="leave the N layers of an int8 variant that cost most in float32 (default: 0)",
    )
    data.add_argument("--no-parity", action="store_true", help="do not compare; the manifest says so")
    parser.set_defaults(run=run, codes=_CODES, program="pairwire export")


def run(args: argparse.Namespace) -> int:
    """Exports, with steps on stderr. Returns the exit code.

    Raises:
        ConfigInvalid: an option that cannot be, or contradicts the checkpoint.
        ExportError: no package was made.
    """
    from .progress import Printer, Progress

    printer = Printer()
    config = _config(args)
    try:
        with Progress(printer).step("load torch, transformers and optimum"):  # seconds, so not before the options
            from .exporter import export_checkpoint
        exported = export_checkpoint(config, printer)
    except KeyboardInterrupt:
        print("\npairwire export: interrupted; nothing was written", file=sys.stderr)
        raise
    print(f"{exported.package.name}: {exported.package.directory}", file=sys.stderr)
    return 0


def _config(args: argparse.Namespace) -> ExportConfig:
    return ExportConfig(
        checkpoint=args.checkpoint,
        output=args.output,
        precisions=tuple(args.precision or ("int8",)),
        kind=args.kind,
        name=args.name,
        max_length=args.max_length,
        revision=args.revision,
        trust_remote_code=args.trust_remote_code,
        force=args.force,
        check_memory=not args.no_memory_check,
        tune=not args.no_tune,
        tune_budget_s=args.tune_budget_s,
        activation=args.activation,
        score_scale=args.score_scale,
        score_bias=args.score_bias,
        calibration_data=args.calibration_data,
        parity=not args.no_parity,
        parity_data=args.parity_data,
        parity_threshold=args.parity_threshold,
        max_diff=args.max_diff,
        sensitivity=args.sensitivity,
        keep_float=args.keep_float,
    )
