"""How a command ends: the exit codes, and the one place where an exception becomes a sentence and a code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

OK = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

EXIT_CODES = """\
exit codes:
  0    done
  1    the server, the model or the machine failed
  2    bad input or usage
  130  interrupted (Ctrl-C)
  141  the reader of the output has gone
"""

_EXTRAS = {
    "onnxruntime": "cpu",
    "torch": "export",
    "transformers": "export",
    "sentence_transformers": "export",
    "optimum": "export",
    "onnx": "export",
    "peft": "export",
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


def run(command: Callable[[], int]) -> int:
    """Runs a command and returns its exit code; errors that people can act on become one sentence on stderr."""
    try:
        code = command()
        sys.stdout.flush()  # a reader that has gone must be noticed here, not when the interpreter ends
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes stdout once more at exit, which would print a second, useless error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except CommandError as error:
        return _say(str(error), error.code)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in _EXTRAS:
            raise
        return _say(f"{module} is not installed; install it with: pip install 'pairwire[{_EXTRAS[module]}]'", FAILED)
    except Exception as error:
        known = _known_code(error)
        if known is None:
            raise
        return _say(str(error), known)


def _say(sentence: str, code: int) -> int:
    print(f"pairwire: {sentence}", file=sys.stderr)
    return code


def _known_code(error: Exception) -> int | None:
    """The exit code of an error of the client's or the server's tree, or None for a bug."""
    # Imported only now: an error of the client's tree means that the client, and grpc with it, is loaded already.
    from pairwire.server.errors import ConfigInvalid, InvalidInput, PairwireError

    if isinstance(error, InvalidInput | ConfigInvalid):
        return BAD_INPUT
    if isinstance(error, PairwireError):
        return FAILED
    client_errors = sys.modules.get("pairwire.client.errors")
    if client_errors is None or not isinstance(error, client_errors.ClientError):
        return None
    return BAD_INPUT if isinstance(error, client_errors.InvalidInput) else FAILED
