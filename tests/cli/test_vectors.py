"""What `pairwire embed` and `embed-sparse` make of vectors, on a server and here: encodings, cuts, prompts, files."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pairwire.cli.server_process import ServerProcess
from tests.cli.conftest import Run
from tests.client.fake_server import FakeServer, score_of, vector_of, weights_of
from tests.server import toy_packages

TEXTS = ["mix flour and water", "", "the dog runs", "how do I bake bread"]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory, prompts = tmp_path_factory.mktemp("packages"), {"query": "query: "}
    return [
        toy_packages.write_bi_encoder(directory / "dense", name="dense", prompts=prompts, int8_range=20),
        toy_packages.write_sparse_encoder(directory / "sparse", name="sparse", prompts=prompts),
        toy_packages.write_cross_encoder(directory / "scorer", name="scorer"),
    ]


@pytest.fixture(scope="module")
def address(packages: list[Path]) -> Iterator[str]:
    with ServerProcess.serve(packages, "--metrics-port=-1", "--warmup-s=0.01") as server:
        from pairwire.client import Client

        with Client(server.address) as client:
            client.wait_until_ready()
        yield server.address


@pytest.mark.parametrize(
    ("encoding", "dtype"), [("float32", "<f4"), ("float16", "<f2"), ("int8", "|i1"), ("binary", "|u1")]
)
def test_a_file_has_the_numbers_of_the_encoding_wherever_they_are_computed(
    encoding: str, dtype: str, run: Run, packages: list[Path], address: str, tmp_path: Path
) -> None:
    path, stdin = tmp_path / "vectors.npy", "\n".join(TEXTS)
    found, printed = [], []
    for where in (("--local", str(packages[0])), ("--address", address)):
        arguments = ("embed", *where, "--encoding", encoding, "--dimensions", "6")
        assert run(*arguments, "-o", str(path), stdin=stdin).code == 0
        found.append(np.load(path))
        lines = run(*arguments, stdin=stdin).lines
        printed.append(np.array([line.split() for line in lines]).astype(dtype))
        objects = [json.loads(line)["embedding"] for line in run(*arguments, "--json", stdin=stdin).lines]
        printed.append(np.array(objects).astype(dtype))
        assert {type(number) for row in objects for number in row} == {float if "f" in dtype else int}
    assert found[0].dtype == np.dtype(dtype)
    assert found[0].shape == (4, 1 if encoding == "binary" else 6)
    assert len(np.unique(found[0])) > 2
    for each in (*found, *printed):
        assert each.dtype == found[0].dtype
        assert np.array_equal(each, found[0])


def test_vectors_are_cut_and_made_unit_wherever_they_are_computed(run: Run, packages: list[Path], address: str) -> None:
    for where in (("--local", str(packages[0])), ("--address", address)):
        plain = np.loadtxt(run("embed", *where, *TEXTS).lines, np.float32)
        done = run("embed", *where, "--dimensions", "3", "--normalize", *TEXTS)
        expected = plain[:, :3] / np.linalg.norm(plain[:, :3], axis=1, keepdims=True)
        assert np.loadtxt(done.lines, np.float32) == pytest.approx(expected, rel=1e-5)


def test_prompts_are_named_or_given_wherever_texts_are_read(run: Run, packages: list[Path], address: str) -> None:
    dense, sparse, scorer = map(str, packages)
    for command, package, model in (("embed", dense, "dense"), ("embed-sparse", sparse, "sparse")):
        for where in (("--local", package), ("--address", address, "--model", model)):
            expected = run(command, *where, "query: a").out
            assert run(command, *where, "a", "--prompt", "query: ").out == expected
            assert run(command, *where, "a", "--prompt-name", "query").out == expected
            assert run(command, *where, "a", "--prompt", "").out == run(command, *where, "a").out != expected
    for where in (("--local", scorer), ("--address", address)):
        scored = run("score", *where, "find: a", "b", "--json").out
        assert scored == run("score", *where, "a", "b", "--json", "--prompt", "find: ").out
        assert scored != run("score", *where, "a", "b", "--json").out
        ranked = json.loads(run("rerank", *where, "a", "b", "--json", "--prompt", "find: ").out)
        assert ranked["results"][0]["score"] == json.loads(scored)["score"]


def test_sparse_vectors_are_printed_as_ids_with_weights(remote: Run) -> None:
    done = remote("embed-sparse", "abca", "", "b")
    assert (done.code, done.err) == (0, "")
    assert done.lines == ["97:2.5 98:1.5 99:1.5", "", "98:1.5"]
    records = [json.loads(line) for line in remote("embed-sparse", "--json", stdin="abca\n\nb\n").lines]
    assert [record["index"] for record in records] == [0, 1, 2]
    for record, text in zip(records, ["abca", "", "b"], strict=True):
        assert dict(zip(record["indices"], record["values"], strict=True)) == weights_of(text)


def test_sparse_vectors_are_the_same_here_and_on_a_server(run: Run, packages: list[Path], address: str) -> None:
    stdin = "\n".join(f"{TEXTS[index % 4]} {index % 90}" for index in range(600))
    options = ("--max-active-dims", "5", "--json")
    here = run("embed-sparse", "--local", str(packages[1]), *options, stdin=stdin)
    there = run("embed-sparse", "--address", address, *options, stdin=stdin)
    assert here.out == there.out
    assert [json.loads(line)["index"] for line in here.lines] == [*range(600)]
    assert {len(json.loads(line)["values"]) for line in here.lines} == {5}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("embed", "a", "--dimensions", "9"), 2, "dimensions: 9 is not between 1 and 8"),
        (("embed", "a", "--encoding", "int8", "--normalize"), 2, "normalize: the int8 ranges are those of"),
        (("embed", "a", "--prompt-name", "nobody"), 2, "model 'dense' has 'query'"),
        (("embed", "a", "--model", "sparse"), 1, "model 'sparse' is a sparse-encoder"),
        (("embed-sparse", "a", "--model", "dense"), 1, "model 'dense' is a bi-encoder"),
        (("score", "a", "b", "--prompt-name", "nobody"), 2, "model 'scorer' has none at all"),
    ],
)
def test_what_the_server_refuses_is_told(
    arguments: tuple[str, ...], code: int, message: str, run: Run, address: str
) -> None:
    done = run(*arguments, "--address", address)
    assert (done.code, done.out) == (code, "")
    assert message in done.err


def test_what_the_package_lacks_is_told(run: Run, packages: list[Path], tmp_path: Path) -> None:
    plain = toy_packages.write_bi_encoder(tmp_path / "plain", name="plain")
    done = run("embed", "--local", str(plain), "a", "--encoding", "int8")
    assert done.code == 1
    assert "the package of model 'plain' has no int8 ranges; export it again" in done.err
    done = run("embed", "--local", str(packages[1]), "a", "--encoding", "int8")
    assert "no model of kind bi-encoder is loaded; there is 'sparse' (sparse-encoder)" in done.err
    done = run("embed", "--local", str(packages[0]), "a", "--encoding", "int8", "--normalize")
    assert (done.code, done.err.startswith("pairwire: normalize: the int8 ranges are")) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("embed", "a", "--prompt", "x", "--prompt-name", "y"), "--prompt-name: not allowed with argument --prompt"),
        (("score", "a", "b", "--prompt-name", "y", "--prompt", "x"), "--prompt: not allowed with argument"),
        (("embed", "a", "--dimensions", "0"), "'0' is not a whole number of at least 1"),
        (("embed", "a", "--encoding", "int4"), "invalid choice: 'int4'"),
        (("embed-sparse", "a", "--max-active-dims", "x"), "'x' is not a whole number"),
        (("embed-sparse", "a", "-i", "x"), "texts as arguments and --input: give one of them"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_sentence(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_prompts_travel_with_every_command(remote: Run, server: FakeServer) -> None:
    for command in (("score", "a", "b"), ("rerank", "q", "d"), ("embed", "t"), ("embed-sparse", "t")):
        assert remote(*command, "--prompt", "find: ").code == 0
        assert remote(*command, "--prompt-name", "query").code == 0
    sent = [(request.prompt, request.prompt_name) for request in server.script.requests]  # type: ignore[attr-defined]
    assert sent == [("find: ", ""), ("", "query")] * 4
    assert remote("score", "a", "b").lines == [f"{score_of('a', 'b'):.6f}"]
    assert json.loads(remote("embed", "a", "--prompt", "x", "--json").out)["embedding"] == vector_of("xa").tolist()
