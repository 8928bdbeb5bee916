"""Options derived from dataclass fields: command-line flags, environment variables, TOML keys and --print-config.

A field is declared once: its name (unit included) is the TOML key, ``--name-with-dashes`` the flag, ``PAIRWIRE_NAME``
the variable; its docstring is the help. Nested dataclasses are sections, and check their own ranges.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import json
import os
import re
import textwrap
import tomllib
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from .errors import ConfigInvalid
from .reasons import reason_of

T = TypeVar("T")

ENVIRONMENT_PREFIX = "PAIRWIRE_"

_SWITCH = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_EXPECTED: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
# Kubernetes sets such for a service called "pairwire" or "pairwire-...": PAIRWIRE_PORT=tcp://10.0.0.1:50051 and others.
_KUBERNETES_NAME = re.compile(r"_SERVICE_(HOST|PORT)(_|$)|_PORT_\d+_(TCP|UDP|SCTP)(_|$)")
_KUBERNETES_VALUE = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One option of a config class."""

    path: tuple[str, ...]
    """The sections down to the field, and the field."""
    kind: type
    """What a value, or an element of a sequence, is: bool, int, float, str or Path."""
    choices: tuple[str, ...]
    """The only values that are allowed; empty where any is."""
    repeated: bool
    optional: bool
    """None is a value."""
    default: object
    help: str

    @property
    def name(self) -> str:
        """``max_items``."""
        return self.path[-1]

    @property
    def flag(self) -> str:
        """``--max-items``."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """``PAIRWIRE_MAX_ITEMS``."""
        return ENVIRONMENT_PREFIX + self.name.upper()

    def parse(self, text: str, where: str) -> object:
        """The value that a flag or variable spells. Raises ConfigInvalid."""
        if self.optional and text.lower() == "none":
            return None
        if not self.repeated:
            return self._check_one(self._read_one(text, where), where)
        separator = os.pathsep if self.kind is Path else ","
        return tuple(self._check_one(self._read_one(part, where), where) for part in text.split(separator) if part)

    def check(self, value: object, where: str) -> object:
        """The value that a TOML key holds. Raises ConfigInvalid."""
        if not self.repeated:
            return self._check_one(value, where)
        if not isinstance(value, list):
            raise ConfigInvalid(f"{where}: expected a list, got {value!r}")
        return tuple(self._check_one(element, where) for element in value)

    def _read_one(self, text: str, where: str) -> object:
        try:
            if self.kind is bool:
                return _SWITCH[text.lower()]
            return self.kind(text) if self.kind in (int, float) else text
        except (KeyError, ValueError):
            raise ConfigInvalid(f"{where}: expected {_EXPECTED[self.kind]}, got {text!r}") from None

    def _check_one(self, value: object, where: str) -> object:
        if self.kind is float and type(value) is int:
            return float(value)
        expected = str if self.kind is Path else self.kind
        if type(value) is not expected or value != value:  # nan is a float but no number
            raise ConfigInvalid(f"{where}: expected {_EXPECTED[expected]}, got {value!r}")
        if self.choices and value not in self.choices:
            raise ConfigInvalid(
                f"{where}: {value!r} is none of {', '.join(self.choices)}{nearest(value, self.choices)}"
            )
        return self.kind(value)


def options_of(config: type) -> tuple[Option, ...]:
    """Every option of a config class, in the order of declaration.

    Raises:
        ValueError: two sections have a field of the same name, or a field has no docstring.
    """
    found = tuple(_walk(config, ()))
    names = [each.name for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"options declared twice: {', '.join(twice)}")
    if silent := [each.name for each in found if not each.help]:
        raise ValueError(f"options without a docstring: {', '.join(silent)}")
    return found


def _walk(config: type, path: tuple[str, ...]) -> Iterator[Option]:
    hints, docs = typing.get_type_hints(config), _field_docs(config)
    for field in dataclasses.fields(config):
        hint, here = hints[field.name], (*path, field.name)
        if dataclasses.is_dataclass(hint):
            yield from _walk(typing.cast(type, hint), here)
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        yield _option(here, hint, default, docs.get(field.name, ""))


def _option(path: tuple[str, ...], hint: Any, default: object, text: str) -> Option:
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:  # X | None
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    repeated = typing.get_origin(hint) is tuple
    if repeated:  # tuple[X, ...]
        hint = typing.get_args(hint)[0]
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    return Option(
        path=path,
        kind=str if choices else hint,
        choices=choices,
        repeated=repeated,
        optional=optional,
        default=default,
        help=text,
    )


def _field_docs(config: type) -> Mapping[str, str]:
    """The docstrings below a class's fields; Python itself does not keep them."""
    docs = {}
    for definition in _module_of(config).body:
        if isinstance(definition, ast.ClassDef) and definition.name == config.__name__:
            for statement, after in zip(definition.body, definition.body[1:], strict=False):
                match statement, after:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                        docs[name] = " ".join(text.replace("``", "").split())
    return docs


def _module_of(config: type) -> ast.Module:
    return _parse(inspect.getsourcefile(config) or "")


@functools.cache
def _parse(file: str) -> ast.Module:
    return ast.parse(Path(file).read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Resolved(Generic[T]):
    """A config and where each of its values comes from."""

    config: T
    sources: Mapping[str, str]
    """Option name -> what set it, e.g. ``default`` or ``flag --port``."""

    def to_toml(self) -> str:
        """The config as TOML that can be fed back, with help and source of every value as comments."""
        lines: list[str] = []
        section: tuple[str, ...] | None = None
        for each in options_of(type(self.config)):
            if each.path[:-1] != section:
                section = each.path[:-1]
                lines += ["", f"# -- {' '.join(section)}"] if section else []
            value: Any = self.config
            for name in each.path:
                value = getattr(value, name)
            lines += textwrap.wrap(each.help, 118, initial_indent="# ", subsequent_indent="# ")
            setting = f"# {each.name} =" if value is None else f"{each.name} = {as_toml(value)}"
            lines.append(f"{setting}  # {self.sources[each.name]}")
        return "\n".join(lines) + "\n"


def resolve(
    config: type[T],
    *,
    flags: Mapping[str, str | Sequence[str]],
    environment: Mapping[str, str],
    file: Path | None,
    foreign: Collection[str] = (),
) -> Resolved[T]:
    """The config from flags, before the environment, before the file, before the defaults.

    Args:
        config: the dataclass.
        flags: option name -> text (texts where the option is positional), of what was given.
        environment: all variables; those without the prefix are not looked at.
        file: a TOML file.
        foreign: variables with the prefix that belong to somebody else.

    Raises:
        ConfigInvalid: an unknown name or a value that cannot be; the sentence says where it stands.
    """
    options = {each.name: each for each in options_of(config)}
    values: dict[str, object] = {}
    sources = dict.fromkeys(options, "default")
    ours = {variable: text for variable, text in environment.items() if variable not in foreign}
    for found in (_from_file(options, file), _from_environment(options, ours), _from_flags(options, flags)):
        for name, value, source in found:
            values[name], sources[name] = value, source
    try:
        built = _build(config, {options[name].path: value for name, value in values.items()}, ())
    except ConfigInvalid as error:
        source = sources.get(str(error).partition(":")[0], "default")
        raise ConfigInvalid(str(error) if source == "default" else f"{error} (set by {source})") from None
    return Resolved(typing.cast(T, built), sources)


_Found = Iterator[tuple[str, object, str]]


def _from_file(options: Mapping[str, Option], file: Path | None) -> _Found:
    if file is None:
        return
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigInvalid(
            f"{file}: cannot be read ({error.strerror or error}); give --config an existing TOML file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigInvalid(f"{file}: not TOML: {reason_of(error)}") from None
    for key, value in content.items():
        if key not in options:
            raise ConfigInvalid(f"{file}: unknown key {key!r}{nearest(key, options)}; --print-config shows all keys")
        yield key, options[key].check(value, f"{file}: {key}"), f"file {file}"


def _from_environment(options: Mapping[str, Option], environment: Mapping[str, str]) -> _Found:
    known = {each.variable: each for each in options.values()}
    for variable, text in sorted(environment.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or _is_from_kubernetes(variable, text):
            continue
        if variable not in known:
            raise ConfigInvalid(
                f"unknown environment variable {variable}{nearest(variable, known)}; unset or correct it"
            )
        each = known[variable]
        yield each.name, each.parse(text, variable), f"environment {variable}"


def _from_flags(options: Mapping[str, Option], flags: Mapping[str, str | Sequence[str]]) -> _Found:
    for name, given in flags.items():
        each = options[name]
        if isinstance(given, str):
            yield name, each.parse(given, each.flag), f"flag {each.flag}"
        else:
            yield name, each.check(list(given), name), "arguments"


def _build(section: type, values: Mapping[tuple[str, ...], object], path: tuple[str, ...]) -> object:
    hints = typing.get_type_hints(section)
    arguments: dict[str, object] = {}
    for field in dataclasses.fields(section):
        here = (*path, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = _build(hints[field.name], values, here)
        elif here in values:
            arguments[field.name] = values[here]
    return section(**arguments)


def as_toml(value: object) -> str:
    """A bool, number, string, path or sequence of those as TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(as_toml(each) for each in value)}]"
    if isinstance(value, (int, float)):
        return repr(value)
    # A JSON string is a TOML string, but for DEL, which TOML wants escaped.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def nearest(name: object, known: Iterable[str]) -> str:
    """`` (did you mean ...?)``, or nothing where no known name is near."""
    close = difflib.get_close_matches(str(name), list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _is_from_kubernetes(variable: str, text: str) -> bool:
    return bool(_KUBERNETES_NAME.search(variable) or _KUBERNETES_VALUE.match(text))
