"""Options and texts in any order: `pairwire rerank QUERY --top-k 1 a b`, which argparse alone does not read.

It fills positional arguments from the first run of them, and gives an empty one to what would come later. So options
are put before texts here, by argparse's own rules of what is an option, and argparse reads the result.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

_END = "--"
"""After it everything is a text."""
_TEXT_LIKE_END = "\0--"
"""Stands for a text that is "--" itself, which argparse would take away. No argument can have a zero byte in it."""


class AnyOrderParser(argparse.ArgumentParser):
    """A command's parser. Its options must take one value each, or none."""

    def parse_known_args(  # type: ignore[override]  # as in typeshed, but for its overloads
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's, with the options of ``args`` put first."""
        if args is None or self._subparsers is not None:  # what follows is another parser's
            return super().parse_known_args(args, namespace)
        found, unknown = super().parse_known_args(self._options_first(args), namespace)
        for name, value in vars(found).items():
            if value == _TEXT_LIKE_END:
                setattr(found, name, _END)
            elif isinstance(value, list):
                setattr(found, name, [_END if each == _TEXT_LIKE_END else each for each in value])
        return found, [each for each in unknown if each not in (_END, _TEXT_LIKE_END)]

    def _options_first(self, args: Sequence[str]) -> list[str]:
        options: list[str] = []
        texts: list[str] = []
        left = list(args)
        while left:
            arg = left.pop(0)
            if arg == _END:
                texts += [_TEXT_LIKE_END if each == _END else each for each in left]
                break
            option = self._option(arg)
            if option is None:
                texts.append(arg)
                continue
            options.append(arg)
            action, value = option
            takes_next = action is not None and action.nargs is None and value is None
            if takes_next and left and left[0] != _END and self._option(left[0]) is None:
                options.append(left.pop(0))
        return [*options, _END, *texts] if texts else options

    def _option(self, arg: str) -> tuple[argparse.Action | None, str | None] | None:
        """The option, if argparse takes this for one, and the value that stands in the same argument."""
        found: Any = self._parse_optional(arg)
        if isinstance(found, list):  # Python 3.12.3 and later: one for each option that it may shorten
            found = found[0]
        return None if found is None else (found[0], found[-1])
