"""One declaration, four ways in: flag over variable over file over default, and every mistake is a sentence."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from pairwire.server.errors import ConfigInvalid
from pairwire.server.options import options_of, resolve


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section."""

    ratio: float = 0.5
    """A share of
    ``something``."""
    colour: Literal["red", "green"] = "red"
    """A colour."""
    steps: tuple[int, ...] = (1, 2)
    """Some numbers."""
    key: Path | None = None
    """A file."""
    loud: bool = False
    """A switch."""

    def __post_init__(self) -> None:
        if self.ratio > 1:
            raise ConfigInvalid(f"ratio: {self.ratio} cannot work; give at most 1")


@dataclass(frozen=True, kw_only=True)
class Whole:
    """A config."""

    places: tuple[Path, ...] = ()
    """Where."""
    count: int = 3
    """How many."""
    section: Section = field(default_factory=Section)


@dataclass(frozen=True, kw_only=True)
class Silent:
    """A config with a field that nobody explained."""

    count: int = 3


@dataclass(frozen=True, kw_only=True)
class Twice:
    """A config with one name in two places."""

    count: int = 1
    """One."""
    whole: Whole = field(default_factory=Whole)


def test_an_option_is_named_after_its_field_and_explained_by_its_docstring() -> None:
    ratio = {option.name: option for option in options_of(Whole)}["ratio"]
    assert (ratio.flag, ratio.variable, ratio.path) == ("--ratio", "PAIRWIRE_RATIO", ("section", "ratio"))
    assert ratio.help == "A share of something."
    assert ratio.default == 0.5


def test_a_field_without_docstring_and_a_name_used_twice_are_refused() -> None:
    with pytest.raises(ValueError, match="without a docstring: count"):
        options_of(Silent)
    with pytest.raises(ValueError, match="declared twice: count"):
        options_of(Twice)


def test_flag_wins_over_variable_over_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text('count = 1\nratio = 1\ncolour = "green"\n')
    environment = {"PAIRWIRE_COUNT": "2", "PAIRWIRE_RATIO": "0.25", "HOME": "/"}
    resolved = resolve(Whole, flags={"count": "7"}, environment=environment, file=file)
    assert resolved.config == Whole(count=7, section=Section(ratio=0.25, colour="green"))
    assert resolved.sources == {
        "places": "default",
        "count": "flag --count",
        "ratio": "environment PAIRWIRE_RATIO",
        "colour": f"file {file}",
        "steps": "default",
        "key": "default",
        "loud": "default",
    }


def test_every_kind_of_value_can_be_spelt_as_text() -> None:
    environment = {
        "PAIRWIRE_STEPS": "16,32",
        "PAIRWIRE_PLACES": "a:b c",
        "PAIRWIRE_KEY": "key.pem",
        "PAIRWIRE_LOUD": "yes",
        "PAIRWIRE_RATIO": "1e-3",
    }
    config = resolve(Whole, flags={}, environment=environment, file=None).config
    assert config.places == (Path("a"), Path("b c"))
    assert config.section == Section(steps=(16, 32), key=Path("key.pem"), loud=True, ratio=0.001)
    assert resolve(Whole, flags={"key": "none"}, environment=environment, file=None).config.section.key is None


def test_what_is_printed_can_be_fed_back(tmp_path: Path) -> None:
    config = Whole(places=(Path('a "b"\\c\x7f猫'),), count=-1, section=Section(key=Path("k"), loud=True, steps=()))
    flags = {"count": "-1", "key": "k", "loud": "true", "steps": "", "places": [str(config.places[0])]}
    resolved = resolve(Whole, flags=flags, environment={}, file=None)
    assert resolved.config == config
    file = tmp_path / "printed.toml"
    file.write_text(resolved.to_toml(), encoding="utf-8")
    again = resolve(Whole, flags={}, environment={}, file=file)
    assert again.config == config
    assert again.sources["count"] == f"file {file}"


def test_the_printed_config_tells_where_each_value_comes_from() -> None:
    text = resolve(Whole, flags={"count": "4"}, environment={"PAIRWIRE_COLOUR": "green"}, file=None).to_toml()
    assert "# How many.\ncount = 4  # flag --count\n" in text
    assert 'colour = "green"  # environment PAIRWIRE_COLOUR' in text
    assert "# key =  # default" in text
    assert tomllib.loads(text)["ratio"] == 0.5


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"PAIRWIRE_COUNT": "many"}, "PAIRWIRE_COUNT: expected a whole number, got 'many'"),
        ({"PAIRWIRE_COUNT": "1.5"}, "PAIRWIRE_COUNT: expected a whole number, got '1.5'"),
        ({"PAIRWIRE_RATIO": "half"}, "PAIRWIRE_RATIO: expected a number, got 'half'"),
        ({"PAIRWIRE_RATIO": "nan"}, "PAIRWIRE_RATIO: expected a number, got nan"),
        ({"PAIRWIRE_LOUD": "maybe"}, "PAIRWIRE_LOUD: expected true or false, got 'maybe'"),
        ({"PAIRWIRE_STEPS": "1,x"}, "PAIRWIRE_STEPS: expected a whole number, got 'x'"),
        ({"PAIRWIRE_COLOUR": "gren"}, r"'gren' is none of red, green \(did you mean green\?\)"),
        ({"PAIRWIRE_COLOR": "red"}, r"variable PAIRWIRE_COLOR \(did you mean PAIRWIRE_COLOUR\?\)"),
        ({"PAIRWIRE_RATIO": "2"}, r"ratio: 2.0 cannot work; give at most 1 \(set by environment PAIRWIRE_RATIO\)"),
    ],
    ids=str,
)
def test_mistakes_in_the_environment_are_sentences(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigInvalid, match=sentence):
        resolve(Whole, flags={}, environment=environment, file=None)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("count = 'x'", "some.toml: count: expected a whole number, got 'x'"),
        ("count = true", "some.toml: count: expected a whole number, got True"),
        ("ratio = 'x'", "some.toml: ratio: expected a number"),
        ("steps = 3", "some.toml: steps: expected a list, got 3"),
        ("steps = [1, 'x']", "some.toml: steps: expected a whole number, got 'x'"),
        ("colour = 'blue'", "'blue' is none of red, green"),
        ("ratoi = 1", r"some.toml: unknown key 'ratoi' \(did you mean ratio\?\)"),
        ("[section]\nratio = 1", "some.toml: unknown key 'section'"),
        ("ratio = ", "some.toml: not TOML"),
        ("ratio = 2", r"give at most 1 \(set by file .*some.toml\)"),
    ],
)
def test_mistakes_in_the_file_are_sentences(content: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text(content)
    with pytest.raises(ConfigInvalid, match=sentence):
        resolve(Whole, flags={}, environment={}, file=file)


def test_a_file_that_is_not_there_or_not_text_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"none.toml: cannot be read \(No such file"):
        resolve(Whole, flags={}, environment={}, file=tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigInvalid, match="not TOML"):
        resolve(Whole, flags={}, environment={}, file=binary)


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over() -> None:
    environment = {
        "PAIRWIRE_PORT": "tcp://10.0.0.1:50051",
        "PAIRWIRE_PORT_50051_TCP": "tcp://10.0.0.1:50051",
        "PAIRWIRE_PORT_50051_TCP_ADDR": "10.0.0.1",
        "PAIRWIRE_SERVICE_HOST": "10.0.0.1",
        "PAIRWIRE_SERVICE_PORT_GRPC": "50051",
        "PAIRWIRE_RERANKER_SERVICE_PORT": "50051",
    }
    assert resolve(Whole, flags={}, environment=environment, file=None).config == Whole()
