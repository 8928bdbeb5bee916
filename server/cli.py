"""``pairwire serve``: a thin skin over `options` and `app`. Only this module prints, installs logging and exits.

Exit codes: 0 after a clean stop; 1 when requests were lost (drain limit, fault of the engine, second signal); 2 when
the server could not start; 3 when something hung and could not be ended.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .banner import serving_line, start_up_table
from .errors import StartupError
from .eventloop import EXIT_LOST, EXIT_STARTUP, catch_signals, leave, loop_factory

if TYPE_CHECKING:
    from .config import ServerConfig
    from .options import Option

_POSITIONAL = "models"
_DESCRIPTION = """\
Serves model packages over gRPC until SIGTERM or SIGINT. Every option can also be given as environment variable
(PAIRWIRE_MAX_ITEMS for --max-items) or in a TOML file (max_items = 2048); flags win over variables, variables over the
file. Exit codes: 0 clean stop, 1 requests were lost, 2 could not start, 3 something hung and could not be ended."""
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
    parser.set_defaults(run=run, codes={StartupError: EXIT_STARTUP})


def run(args: argparse.Namespace) -> int:
    """Serves until a signal; returns the exit code.

    Raises:
        StartupError: it could not start; the sentence says why.
    """
    from .config import VARIABLES_OF_THE_CLIENT, ServerConfig
    from .options import options_of, resolve

    names = {option.name for option in options_of(ServerConfig)}
    # An empty list of positionals is one that was not given.
    flags = {name: value for name, value in vars(args).items() if name in names and value != []}
    resolved = resolve(
        ServerConfig, flags=flags, environment=os.environ, file=args.config, foreign=VARIABLES_OF_THE_CLIENT
    )
    if args.print_config:
        print(resolved.to_toml(), end="")
        return 0
    return _serve(resolved.config)


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
    # gRPC's C core writes to stderr on its own; our own sentences report what matters. The user's setting wins.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from . import logs

    handler = logs.install(sys.stderr, log_format=config.logging.log_format, level=config.logging.log_level)
    try:
        if config.scaling.processes > 1:
            from .processes.supervisor import Supervisor

            return asyncio.run(Supervisor(config).run(_tell))
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(_serve_alone(config))
    finally:
        logs.uninstall(handler)


def _tell(line: str) -> None:
    """To stdout. That nobody reads it, or that it is full, is no reason not to serve."""
    try:
        print(line, flush=True)
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):  # what is left in its buffer would fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _serve_alone(config: ServerConfig) -> NoReturn:
    from .app import Application
    from .serving import explained_start, hangup_of, on_fault, serve_until

    stop = asyncio.Event()
    built: list[Application] = []
    catch_signals(stop, on_second=lambda: leave(EXIT_LOST), on_hangup=hangup_of(built))
    with explained_start():
        application = Application(config, on_fault=on_fault)
    built.append(application)

    async def start() -> None:
        await application.listen()
        await application.load()

    def on_ready() -> None:
        _tell(start_up_table(application.engine.models.values()))
        _tell(serving_line(config.listen.host, application.port, application.metrics_port, application.http_port))

    await serve_until(stop, application, start=start, on_ready=on_ready)
