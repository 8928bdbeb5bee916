"""Logging: text on a terminal, JSON lines elsewhere. Only the command line installs it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

_OF_PEERS = ("ExecuteBatchError", "InternalError", "DecodeError")

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, then ``extra`` and exception."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _PLAIN)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return shown(json.dumps(line, ensure_ascii=False, default=str), json_escape)


class TextFormatter(logging.Formatter):
    """``12:34:56.789 info  message  key=value``, with the traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        when = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        extra = "".join(f"  {key}={value}" for key, value in vars(record).items() if key not in _PLAIN)
        line = shown(f"{when} {record.levelname.lower():7} {record.getMessage()}{extra}")
        if not record.exc_info:
            return line
        # Set in, so that nothing that is quoted there passes for a line of the log.
        trace = self.formatException(record.exc_info).split("\n")
        return "\n".join([line, *(f"    {shown(each)}" for each in trace)])


def json_escape(character: str) -> str:
    """As JSON spells it."""
    return json.dumps(character)[1:-1] if ord(character) != 0x7F else "\\u007f"


def shown(text: str, escape: Callable[[str], str] = lambda character: repr(character)[1:-1]) -> str:
    """Text with everything escaped that a terminal would obey or a reader would take for the end of a line.

    Callers choose names that are logged: with an escape character they could write anything into a log, a line break
    would let them forge lines.
    """
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else escape(each) for each in text)


class Quiet(logging.Filter):
    """Drops what gRPC says with a traceback of peers that left or sent what is no message; their calls are counted."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        error = record.exc_info[1] if record.exc_info else None
        return not (record.name.startswith("grpc.") and type(error).__name__ in _OF_PEERS)


class _Numbered(logging.Filter):
    """Puts the number of the process on every record, as an ``extra``."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def filter(self, record: logging.LogRecord) -> bool:
        record.process_number = self._number
        return True


def install(
    stream: TextIO, *, log_format: str = "auto", level: str = "info", process_number: int | None = None
) -> logging.Handler:
    """Sends Pairwire's log to the stream from ``level`` on, and warnings of libraries too; returns the handler.

    ``auto`` is text where the stream is a terminal, else JSON. ``process_number``, where given, stands on every line.
    """
    as_text = stream.isatty() if log_format == "auto" else log_format == "text"
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    handler.addFilter(Quiet())
    if process_number is not None:
        handler.addFilter(_Numbered(process_number))
    logging.root.addHandler(handler)
    logging.getLogger("pairwire").setLevel(level.upper())
    return handler


def uninstall(handler: logging.Handler) -> None:
    """Takes back ``install``."""
    logging.root.removeHandler(handler)
    logging.getLogger("pairwire").setLevel(logging.NOTSET)
