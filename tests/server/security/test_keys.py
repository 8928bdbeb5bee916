"""The file of keys: what it says, what is wrong with it, and that keys are shown nowhere."""

import contextvars
import hashlib
import logging
from pathlib import Path

import pytest

from pairwire.cli.main import main
from pairwire.server.config import SecurityConfig
from pairwire.server.errors import ConfigInvalid, PermissionDenied, Unauthenticated
from pairwire.server.security.access import Access, authenticated
from pairwire.server.security.keys import make_key, read_keys
from pairwire.server.security.roles import ANY, INFER, NOTHING, OPERATE, Role


def test_a_key_is_found_by_what_the_file_has_of_it(tmp_path: Path) -> None:
    key, identity = make_key("search", [Role.INFER, Role.OBSERVE])
    other, another = make_key("batch", [Role.OPERATE])
    path = tmp_path / "keys"
    path.write_text(f"# who may\n\n{identity.to_line()}  # of the shop\n{another.to_line()}\n")
    keys = read_keys(path)
    assert len(keys) == 2
    assert keys.find(key.encode()) == identity
    assert keys.find(other.encode()) == another
    for wrong in (b"", b"pw_", key[:-1].encode(), f"{key}x".encode(), identity.digest, b"\xff" * 40, b"a" * 100_000):
        assert keys.find(wrong) is None
    assert identity.to_line().endswith(hashlib.sha256(key.encode()).hexdigest())
    assert key not in path.read_text()
    assert identity.digest.hex() not in repr(identity)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("pw_this-is-a-key-by-mistake", "line 2: 1 words"),
        ("a b c d", "line 2: 4 words"),
        ("-x infer sha256:" + "0" * 64, "line 2: the first word is no name"),
        ("x reader sha256:" + "0" * 64, "line 2: the second word has roles that are none of infer, operate, observe"),
        ("x , sha256:" + "0" * 64, "line 2: the second word"),
        ("x infer pw_this-is-a-key-by-mistake", "line 2: the third word is no sha256"),
        ("x infer sha256:" + "0" * 63, "line 2: the third word is no sha256"),
        ("y infer sha256:" + "1" * 64, "line 2: the same key as that of first"),
    ],
)
def test_a_wrong_line_is_named_and_not_shown(line: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"first infer sha256:{'1' * 64}\n{line}\n")
    with pytest.raises(ConfigInvalid, match=sentence) as caught:
        read_keys(path)
    assert "mistake" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"api_keys: .* cannot be read \(No such file"):
        read_keys(tmp_path / "none")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigInvalid, match="is not UTF-8"):
        read_keys(tmp_path / "bytes")


def test_without_a_file_everybody_may_and_nobody_is_known() -> None:
    access = Access(SecurityConfig())

    def call() -> str:
        access.admit([("authorization", "Basic nonsense")], OPERATE)
        return authenticated()

    assert contextvars.Context().run(call) == ""
    assert access.metrics == NOTHING
    assert access.reflection == NOTHING


def test_what_a_call_shows(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key, identity = make_key("search", [Role.INFER])
    path = tmp_path / "keys"
    path.write_text(identity.to_line())
    access = Access(SecurityConfig(api_keys=path))
    for headers in (
        [("authorization", f"Bearer {key}")],
        [("authorization", f"bearer   {key} ")],
        [("x-api-key", key)],
        [("authorization", "Basic dXNlcjpwYXNz"), ("x-api-key", key)],  # of a proxy before us
    ):
        assert access.refusal(headers, INFER) is None
        assert authenticated() == "api-key:search"
    assert access.refusal([], NOTHING) is None
    wrong: list[tuple[list[tuple[str, str | bytes]], type[Exception]]] = [
        ([], Unauthenticated),
        ([("authorization", "Bearer ")], Unauthenticated),
        ([("authorization", "Basic dXNlcjpwYXNz")], Unauthenticated),
        ([("authorization", f"Bearer {key}x")], Unauthenticated),
        ([("authorization", f"Bearer {key}")] * 2, Unauthenticated),
        ([("x-api-key", key), ("x-api-key", "other")], Unauthenticated),
        ([("x-api-key", b"\xff\x00")], Unauthenticated),
    ]
    for headers, error in wrong:
        found = access.refusal(headers, ANY)
        assert type(found) is error
        assert key not in str(found)
    denied = access.refusal([("x-api-key", key)], OPERATE)
    assert isinstance(denied, PermissionDenied)
    assert str(denied) == "api-key:search has the role infer; this call needs operate"
    assert key not in caplog.text
    assert key not in repr(access)


def test_a_file_that_gets_worse_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    key, identity = make_key("search", [Role.INFER])
    path = tmp_path / "keys"
    path.write_text(identity.to_line())
    access = Access(SecurityConfig(api_keys=path))
    path.write_text("nonsense")
    access.reload()
    assert access.refusal([("x-api-key", key)], INFER) is None
    assert "1 words; expected NAME ROLES sha256:HEX" in caplog.text
    assert "the 1 keys read before stay in force" in caplog.text
    path.write_text("")
    access.reload()
    assert isinstance(access.refusal([("x-api-key", key)], INFER), Unauthenticated)


def test_closing_what_nobody_has_a_key_for_is_refused() -> None:
    with pytest.raises(ConfigInvalid, match="metrics_access: observe needs API keys or tokens"):
        SecurityConfig(metrics_access="observe")


def test_the_command_prints_a_key_and_appends_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys"
    assert main(["api-key", "search", "--file", str(path)]) == 0
    first = capsys.readouterr().out.strip()
    path.write_text(path.read_text().strip())  # no end of line, as some editors leave it
    assert main(["api-key", "ops", "--roles", "operate,observe", "--file", str(path)]) == 0
    second = capsys.readouterr().out.strip()
    assert path.stat().st_mode & 0o777 == 0o600
    keys = read_keys(path)
    found = keys.find(first.encode()), keys.find(second.encode())
    assert [each and (each.name, each.roles) for each in found] == [
        ("search", {Role.INFER}),
        ("ops", {Role.OPERATE, Role.OBSERVE}),
    ]
    assert main(["api-key", "bad name"]) != 0
    assert main(["api-key", "x", "--roles", "root"]) != 0
    assert "'root' is none of infer, operate, observe" in capsys.readouterr().err
