"""docs/options.md and docs/metrics.md, written from the code: ``python -m tests.docs``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from pairwire.cli.main import build_parser
from pairwire.server.config import ServerConfig
from pairwire.server.metrics import TABLE
from pairwire.server.options import Option, options_of
from pairwire.server.processes.totals import Reading, shown

DOCS = Path(__file__).parents[2] / "docs"

_OPTIONS = """# Options

Written by `python -m tests.docs` from the code.

## `pairwire serve`

Each option is a flag (`--max-items 64`), an environment variable (`PAIRWIRE_MAX_ITEMS=64`) and a key of the TOML file
that `--config` names (`max_items = 64`). Flags win over variables, variables over the file. `--print-config` shows what
is in force.
"""
_METRICS = """# Metrics

Written by `python -m tests.docs` from the code. Prometheus reads them from `--metrics-port`. Counters end in `_total`;
a histogram has `_bucket`, `_sum` and `_count`. The `process_*` series of prometheus-client (memory, CPU, open files)
are there too.

"""


def options_page() -> str:
    """The whole of docs/options.md."""
    lines = [_OPTIONS]
    section: str | None = None
    for option in options_of(ServerConfig):
        if len(option.path) > 1 and option.path[0] != section:
            section = option.path[0]
            lines += ["", f"### {section}", "", "| Flag and variable | Default | |", "|---|---|---|"]
        if section is not None:
            lines.append(_server_row(option))
    for name, parser in _commands():
        if name != "serve":
            lines += ["", f"## `pairwire {name}`", "", f"{_first_sentence(parser.description)}", ""]
            lines += ["| Argument | Default | |", "|---|---|---|", *_rows(parser)]
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """The whole of docs/metrics.md."""
    lines = [_METRICS + "| Series | Kind | Labels | |", "|---|---|---|---|"]
    for series in TABLE:
        name = f"{series.name}_total" if series.kind == "counter" else series.name
        lines.append(f"| `{name}` | {series.kind} | {', '.join(series.labels) or '-'} | {_escaped(series.help)} |")
    lines += ["", "Only the supervisor of several processes has these:", ""]
    lines += ["| Series | Kind | Labels | |", "|---|---|---|---|"]
    for family in shown(Reading(retired=(), texts=("",), processes=1, ready=1, restarts=0)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(sorted({label for sample in family.samples for label in sample.labels})) or "-"
        lines.append(f"| `{name}` | {family.type} | {labels} | {_escaped(family.documentation)} |")
    return "\n".join(lines) + "\n"


def _server_row(option: Option) -> str:
    choices = f" One of {', '.join(f'`{choice}`' for choice in option.choices)}." if option.choices else ""
    default = "none" if option.default is None else option.default
    return f"| `{option.flag}`<br>`{option.variable}` | `{default}` | {_escaped(option.help)}{choices} |"


def _commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield from _below(build_parser(), "")


def _below(parser: argparse.ArgumentParser, before: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands of a parser by their names, or instead of one that has commands itself, those."""
    for action in parser._actions:  # argparse has no public way to walk a parser
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield from list(_below(command, f"{before}{name} ")) or [(f"{before}{name}", command)]


def _rows(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        name = " ".join(f"`{each}`" for each in action.option_strings) or f"`{action.metavar or action.dest}`"
        choices = f" One of {', '.join(f'`{choice}`' for choice in action.choices)}." if action.choices else ""
        default = "" if action.default in (None, False, argparse.SUPPRESS, [], ()) else f"`{action.default}`"
        yield f"| {name} | {default} | {_escaped((action.help or '').replace('%%', '%'))}{choices} |"


def _first_sentence(description: str | None) -> str:
    return " ".join((description or "").split())


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
