"""``pairwire serve``: a thin skin over `options` and `app`. Only this module prints, installs logging and exits.

Exit codes: 0 after a clean stop; 1 when requests were lost (drain limit, fault of the engine, second signal); 2 when
the server could not start.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .errors import StartupError

if TYPE_CHECKING:
    from .app import Application
    from .config import ServerConfig
    from .engine.results import ModelInfo
    from .options import Option

EXIT_LOST = 1
EXIT_STARTUP = 2

_POSITIONAL = "models"
_DESCRIPTION = """\
Serves model packages over gRPC until SIGTERM or SIGINT. Every option can also be given as environment variable
(PAIRWIRE_MAX_ITEMS for --max-items) or in a TOML file (max_items = 2048); flags win over variables, variables over the
file. Exit codes: 0 clean stop, 1 requests were lost, 2 could not start."""
_SUFFIXES = {"_s": "SECONDS", "_bytes": "BYTES", "_tokens": "TOKENS", "port": "PORT"}
_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "FILE"}


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Registers ``serve``; its ``run`` is in the namespace."""
    from .config import ServerConfig
    from .options import options_of

    parser = subparsers.add_parser(
        "serve",
        help="serve model packages over gRPC",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file with options")
    parser.add_argument("--print-config", action="store_true", help="print what is in force, and where from, and exit")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in options_of(ServerConfig):
        if option.name == _POSITIONAL:
            parser.add_argument(option.name, nargs="*", metavar="DIR", default=argparse.SUPPRESS, help=option.help)
            continue
        section = option.path[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        _add_flag(groups[section], option)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serves until a signal; returns the exit code."""
    from .config import VARIABLES_OF_THE_CLIENT, ServerConfig
    from .options import options_of, resolve

    names = {option.name for option in options_of(ServerConfig)}
    # An empty list of positionals is one that was not given.
    flags = {name: value for name, value in vars(args).items() if name in names and value != []}
    try:
        resolved = resolve(
            ServerConfig, flags=flags, environment=os.environ, file=args.config, foreign=VARIABLES_OF_THE_CLIENT
        )
        if args.print_config:
            print(resolved.to_toml(), end="")
            return 0
        return _serve(resolved.config)
    except StartupError as error:
        print(f"pairwire: {error}", file=sys.stderr)
        return EXIT_STARTUP


def _add_flag(group: argparse._ArgumentGroup, option: Option) -> None:
    """The value stays text, for one parser and one set of sentences; what is not given is not in the namespace."""
    default = "none" if option.default is None else option.default
    text = f"{option.help} Default: {default}.".replace("%", "%%")
    if option.choices:
        metavar = "|".join(option.choices)
    else:
        named = (metavar for suffix, metavar in _SUFFIXES.items() if option.name.endswith(suffix))
        metavar = next(named, _METAVARS.get(option.kind, "X"))
    group.add_argument(option.flag, dest=option.name, metavar=metavar, default=argparse.SUPPRESS, help=text)


def _serve(config: ServerConfig) -> int:
    # gRPC's C core writes to stderr on its own; what matters is told by our sentences. The user's setting wins.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from . import logs

    handler = logs.install(sys.stderr, log_format=config.logging.log_format, level=config.logging.log_level)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve_until_signalled(config))
    finally:
        logs.uninstall(handler)


async def _serve_until_signalled(config: ServerConfig) -> int:
    from .app import Application

    stop = asyncio.create_task(_catch_signals(asyncio.get_running_loop()).wait())
    application = Application(config)
    try:
        await application.listen()
        loading = asyncio.create_task(application.load())
        await asyncio.wait((loading, stop), return_when=asyncio.FIRST_COMPLETED)
        if not loading.done():
            _leave(0)  # nothing was accepted yet, and a thread that loads cannot be interrupted
        await loading
    except StartupError:
        await application.abort()
        raise
    print(start_up_table(application.engine.models.values()))
    print(serving_line(application), flush=True)
    failed = asyncio.create_task(application.failed.wait())
    await asyncio.wait((stop, failed), return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        await application.abort()
        _leave(EXIT_LOST)
    failed.cancel()
    if not await application.drain():
        _leave(EXIT_LOST)
    return 0


def serving_line(application: Application) -> str:
    """What programs read to learn the ports; ends in ``metrics off`` where they are."""
    host = application.config.listen.host
    host = f"[{host}]" if ":" in host else host
    metrics = "off" if application.metrics_port is None else f"on {host}:{application.metrics_port}"
    return f"pairwire: serving on {host}:{application.port}, metrics {metrics}"


def start_up_table(models: Iterable[ModelInfo]) -> str:
    """One line a model: name, kind, variant, provider, threads, lengths of the buckets."""
    rows: list[Sequence[str]] = [("model", "kind", "variant", "provider", "threads", "bucket lengths")]
    for info in models:
        lengths = info.bucket_lengths
        rows.append(
            (
                info.name,
                info.kind.value,
                info.variant,
                info.runtime.provider,
                f"{info.workers} x {info.runtime.intra_op_threads}",
                f"{len(lengths)}, from {lengths[0]} to {lengths[-1]}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _catch_signals(loop: asyncio.AbstractEventLoop) -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process at once."""
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            _leave(EXIT_LOST)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop


def _leave(code: int) -> NoReturn:
    """Ends the process without waiting for any thread."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The one of uvloop, which is installed everywhere but on Windows."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
