"""How a command ends: the exit codes, and the one place where an exception becomes a sentence and a code."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import TextIO

OK = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

EXIT_CODES = """\
exit codes:
  0    done
  1    the server, the model or the machine failed, or Pairwire did
  2    bad input or usage
  130  interrupted (Ctrl-C)
  141  the reader of the output has gone
"""

Codes = Mapping[type[BaseException], int]

_EXTRAS = {
    "onnxruntime": "cpu",
    "torch": "export",
    "transformers": "export",
    "sentence_transformers": "export",
    "sentencepiece": "export",
    "optimum": "export",
    "onnx": "export",
    "peft": "export",
    "pyarrow": "bulk",
    "fsspec": "bulk",
}
"""Module -> the extra that brings it."""


class CommandError(Exception):
    """A command cannot go on; ``str(error)`` is a sentence for a person."""

    def __init__(self, message: str, *, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


class BadInput(CommandError):
    """What the user gave cannot be used: a line, a file, an option."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code=BAD_INPUT)


def run(command: Callable[[], int], args: argparse.Namespace | None = None) -> int:
    """Runs a command and returns its exit code; whatever it raises becomes one sentence on stderr.

    The sentence is an error's own where the error is one of Pairwire's. Any other is explained: which command, the
    library's own first line, and how to see its traceback. ``args`` are the parsed arguments: ``debug`` prints the
    traceback before the sentence, ``codes`` has exit codes of the command's own, ``program`` is what it calls itself.
    """
    try:
        code = command()
        if sys.stdout is not None:
            sys.stdout.flush()  # a reader that has gone must be noticed here, not when the interpreter ends
        return code
    except KeyboardInterrupt:
        _drop_output()
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except Exception as error:
        if getattr(args, "debug", False):
            traceback.print_exception(error)
        sentence, code = _explain(error, args)
        with contextlib.suppress(OSError, ValueError):  # who has closed stderr does not want to know
            print(f"{getattr(args, 'program', 'pairwire')}: {sentence}", file=sys.stderr)
        _drop_output()
        return code


def _explain(error: Exception, args: argparse.Namespace | None) -> tuple[str, int]:
    """The sentence and the exit code."""
    if isinstance(error, CommandError):
        return str(error), error.code
    module = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if module in _EXTRAS:
        return f"{module} is not installed; install it with: pip install 'pairwire[{_EXTRAS[module]}]'", FAILED
    known = _known_code(error, getattr(args, "codes", {}))
    if known is not None:
        return str(error), known
    return _explain_unknown(error, getattr(args, "command", ""))


def _explain_unknown(error: Exception, command: str) -> tuple[str, int]:
    from pairwire.server.reasons import is_of_the_machine, reason_of

    reason = f"{command}: {reason_of(error)}" if command else reason_of(error)
    if isinstance(error, OSError) and error.filename is None and not _is_writable(sys.stdout):
        return f"the output cannot be written: {reason_of(error)}", FAILED
    if is_of_the_machine(error):
        return reason, FAILED
    if isinstance(error, OSError) and error.filename is not None:
        return reason, BAD_INPUT  # a file or directory that somebody has named
    kind = type(error).__name__
    shown = reason if kind in reason else f"{reason} ({kind})"
    return f"{shown}; this was not foreseen: --debug shows where it happened", FAILED


def _known_code(error: Exception, codes: Codes) -> int | None:
    """The exit code of an error of the client's or the server's tree, or None for any other."""
    # Imported only now: an error of the client's tree means that the client, and grpc with it, is loaded already.
    from pairwire.server.errors import ConfigInvalid, InvalidInput, PairwireError

    table: dict[type[BaseException], int] = {PairwireError: FAILED, InvalidInput: BAD_INPUT, ConfigInvalid: BAD_INPUT}
    client_errors = sys.modules.get("pairwire.client.errors")
    if client_errors is not None:
        table |= {client_errors.ClientError: FAILED, client_errors.InvalidInput: BAD_INPUT}
    table |= codes
    return next((table[kind] for kind in type(error).__mro__ if kind in table), None)


def _drop_output() -> None:
    """Gives up what stdout could not take.

    Python flushes it once more at exit, and would print a second, useless error.
    """
    if _is_writable(sys.stdout):
        return
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _is_writable(stream: TextIO | None) -> bool:
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        return False
    return True
