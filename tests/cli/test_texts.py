"""`pairwire score`, `rerank` and `embed` against a server: what is read, what is printed, and how it ends."""

import json
from collections import deque
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.client.fake_server import Failure, FakeServer, bad_request, ranking, score_of, vector_of

PAIRS = [("a", "b"), ("one more", "текст"), ("", "x")]


def printed(pairs: list[tuple[str, str]]) -> list[str]:
    return [f"{score_of(*pair):.6f}" for pair in pairs]


def test_two_texts_give_one_score(remote: Run) -> None:
    done = remote("score", "a", "b")
    assert (done.code, done.err) == (0, "")
    assert done.lines == printed([("a", "b")])


def test_the_first_text_is_scored_with_each_of_the_others(remote: Run) -> None:
    assert remote("score", "a", "b", "c", "d").lines == printed([("a", "b"), ("a", "c"), ("a", "d")])


@pytest.mark.parametrize(
    "lines",
    [
        [json.dumps(pair) for pair in PAIRS],
        [json.dumps({"first": first, "second": second}) for first, second in PAIRS],
        [json.dumps({"query": query, "document": document}) for query, document in PAIRS],
        [json.dumps({"sentence1": first, "sentence2": second, "label": 1}) for first, second in PAIRS],
        ["\t".join(pair) for pair in PAIRS],
    ],
)
def test_every_form_of_pairs_is_told_apart(remote: Run, tmp_path: Path, lines: list[str]) -> None:
    text = "\n".join(lines)
    path = tmp_path / "pairs"
    path.write_text(text, encoding="utf-8")
    assert remote("score", stdin=text).lines == printed(PAIRS)
    assert remote("score", "--input", str(path)).lines == printed(PAIRS)
    assert remote("score", "-i", "-", stdin=text + "\n\n").lines == printed(PAIRS)


def test_windows_line_ends_and_a_byte_order_mark_are_not_text(remote: Run) -> None:
    assert remote("score", stdin=b"\xef\xbb\xbfa\tb\r\nc\td\r\n").lines == printed([("a", "b"), ("c", "d")])


def test_only_newlines_end_lines(remote: Run) -> None:
    assert remote("score", stdin="a\u2028b\tc\x0bd\n").lines == printed([("a\u2028b", "c\x0bd")])


def test_json_output_has_an_object_a_line(remote: Run, server: FakeServer) -> None:
    done = remote("score", "--json", stdin="a\tb\nc\td\n")
    records = [json.loads(line) for line in done.lines]
    assert [record["index"] for record in records] == [0, 1]
    assert [np.float32(record["score"]) for record in records] == [score_of("a", "b"), score_of("c", "d")]
    assert [record.get("truncated") for record in records] == [True, None]
    server.script.labels = ("no", "yes")
    (record,) = [json.loads(line) for line in remote("score", "--json", "a", "b").lines]
    assert list(record["scores"]) == ["no", "yes"]


def test_several_labels_have_tabs_between(remote: Run, server: FakeServer) -> None:
    server.script.labels = ("no", "yes")
    score = score_of("a", "b")
    assert remote("score", "a", "b").lines == [f"{score:.6f}\t{score + 2:.6f}"]


def test_a_large_input_is_streamed_in_order(remote: Run, server: FakeServer) -> None:
    pairs = [(f"q{index}", f"d{index}") for index in range(1000)]
    assert remote("score", stdin="\n".join("\t".join(pair) for pair in pairs)).lines == printed(pairs)
    assert len(server.script.requests) == 4


def test_options_of_the_model_travel(remote: Run, server: FakeServer) -> None:
    remote("score", "a", "b", "--model", "m", "--activation", "identity", "--truncation", "error", "--max-length", "9")
    (request,) = server.script.requests
    assert (request.model, request.activation, request.truncation, request.max_length) == ("m", 1, 3, 9)


@pytest.mark.parametrize("command", [("score", "a", "b"), ("rerank", "q", "d"), ("embed", "t")], ids=lambda c: c[0])
def test_the_priority_travels(command: tuple[str, ...], remote: Run, server: FakeServer) -> None:
    remote(*command, "--priority", "low")
    remote(*command)
    assert [request.priority for request in server.script.requests] == [1, 0]


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        ("a\tb\nc\n", "line 2: expected two texts with a tab between them, found 1 columns"),
        ("a\tb\tc\n", "line 1: expected two texts with a tab between them, found 3 columns"),
        ('["a", "b"]\n["a"]\n', "line 2: expected a pair of texts"),
        ('["a", "b"]\n\n["a", 3]\n', "line 3: second text: expected text, got int"),
        ('["a", "b"]\n{"first": "a"}\n', "line 2: expected a pair of texts"),
        ('["a", "b"]\n["a", \n', "line 2: not JSON"),
        ('{"first": "a"\n', "line 1: not JSON"),
        ('["a", "\\ud800"]\n', "line 1: second text: not valid Unicode, a lone surrogate at character 1"),
        (b"a\tb\nc\t\xff\n", "line 2: not valid UTF-8 at byte 3"),
        ("", "pairs: at least one is needed"),
        ("\n\n", "pairs: at least one is needed"),
    ],
)
def test_a_wrong_line_is_named(remote: Run, stdin: str | bytes, message: str) -> None:
    done = remote("score", stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"pairwire: {message}")


def test_what_came_before_a_wrong_line_is_printed(remote: Run) -> None:
    done = remote("score", stdin="".join(f"a\t{index}\n" for index in range(5000)) + "wrong\n")
    assert done.code == 2
    assert "line 5001" in done.err
    assert done.lines == printed([("a", str(index)) for index in range(len(done.lines))])
    assert len(done.lines) >= 256


def test_what_the_server_refuses_is_named_by_its_line(remote: Run, server: FakeServer) -> None:
    server.script.failures = deque([bad_request("text_pairs.pairs[1].second", "900 tokens exceed max_length 512")])
    done = remote("score", stdin='["a", "b"]\n\n\n["c", "d"]\n')
    assert done.code == 2
    assert done.err == "pairwire: line 4: pairs[1].second: 900 tokens exceed max_length 512\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "a"), "one text is no pair"),
        (("score", "a", "b", "-i", "x"), "texts as arguments and --input: give one of them"),
        (("score", "-i", "/no/such/file"), "/no/such/file: No such file or directory"),
        (("score", "-i", "/"), "/: Is a directory"),
        (("score", "a", "b", "--address", "nowhere"), "'nowhere' has no port"),
        (("score", "a", "b", "--ca-file", "/no/such/file"), "No such file"),
        (("score", "a", "b", "--key-file", "key.pem"), "give both"),
        (("score", "a", "b", "--local", "x", "--tls"), "--local uses no connection"),
        (("score", "a", "b", "--local", "x", "--address", "a:1"), "not allowed with argument"),
        (("score", "a", "b", "--timeout", "0"), "'0' is not a positive number of seconds"),
        (("score", "a", "b", "--max-length", "x"), "'x' is not a whole number of at least 1"),
        (("rerank", "q", "d", "-i", "x"), "documents as arguments and --input"),
        (("rerank", "q", "--format", "tsv"), "--format tsv has queries of its own"),
        (("rerank", "--format", "text"), "--format text needs a QUERY"),
        (("rerank", "q", "d", "-k", "0"), "'0' is not a whole number"),
        (("embed", "a", "-o", "vectors.txt"), "call it vectors.npy"),
        (("embed", "a", "-o", "/no/such/place/v.npy"), "/no/such/place/v.npy: No such file"),
        (("embed", "a", "-i", "x"), "texts as arguments and --input"),
        ((), "the following arguments are required: COMMAND"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_sentence(run: Run, arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


def test_a_server_that_is_not_there_ends_with_1(run: Run, server: FakeServer) -> None:
    server.close()
    done = run("score", "a", "b", "--address", server.address)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"pairwire: {server.address}: nothing is ready to answer there; start `pairwire serve`")


def test_a_failing_server_ends_with_1(remote: Run, server: FakeServer) -> None:
    server.script.failures = deque([Failure(grpc.StatusCode.INTERNAL, "the runtime failed")])
    done = remote("score", "a", "b")
    assert (done.code, done.err) == (1, "pairwire: the runtime failed\n")


def test_the_address_may_come_from_the_environment(
    run: Run, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAIRWIRE_ADDRESS", server.address)
    assert run("score", "a", "b").lines == printed([("a", "b")])


def test_several_addresses_have_commas_between(run: Run, server: FakeServer) -> None:
    other = FakeServer()
    try:
        done = run("score", "a", "b", "--address", f"{server.address},{other.address}")
        assert done.lines == printed([("a", "b")])
    finally:
        other.close()


DOCUMENTS = ["first", "second\ttext", "third"]


def ranked(query: str, documents: list[str]) -> list[str]:
    scores = [score_of(query, document) for document in documents]
    return [
        f"{rank}\t{scores[index]:.6f}\t{index}\t{' '.join(documents[index].split())}"
        for rank, index in enumerate(ranking(scores), start=1)
    ]


def test_documents_are_ranked(remote: Run) -> None:
    assert remote("rerank", "q", *DOCUMENTS).lines == ranked("q", DOCUMENTS)
    assert remote("rerank", "q", *DOCUMENTS, "-k", "2").lines == ranked("q", DOCUMENTS)[:2]


@pytest.mark.parametrize(
    "stdin",
    [
        "\n".join(DOCUMENTS),
        "\n".join(map(json.dumps, DOCUMENTS)),
        "\n".join(json.dumps({"text": d}) for d in DOCUMENTS),
    ],
)
def test_documents_of_one_query_may_be_lines(remote: Run, stdin: str) -> None:
    assert remote("rerank", "q", stdin=stdin).lines == ranked("q", DOCUMENTS)


def test_several_queries_are_ranked_one_after_the_other(remote: Run) -> None:
    queries = {f"query {index}": [f"document {index} {at}" for at in range(3)] for index in range(9)}
    jsonl = "\n".join(json.dumps({"query": query, "documents": documents}) for query, documents in queries.items())
    tsv = "\n".join(f"{query}\t{document}" for query, documents in queries.items() for document in documents)
    expected = [line for query, documents in queries.items() for line in [f"# {query}", *ranked(query, documents)]]
    assert remote("rerank", stdin=jsonl).lines == expected
    assert remote("rerank", stdin=tsv).lines == expected


def test_rankings_in_json_have_the_documents(remote: Run) -> None:
    (line,) = remote("rerank", "q", *DOCUMENTS, "-k", "1", "--json").lines
    record = json.loads(line)
    best = ranking([score_of("q", document) for document in DOCUMENTS])[0]
    assert record["query"] == "q"
    assert [(found["index"], found["document"]) for found in record["results"]] == [(best, DOCUMENTS[best])]
    assert np.float32(record["results"][0]["score"]) == score_of("q", DOCUMENTS[best])


@pytest.mark.parametrize(
    ("stdin", "message"),
    [
        ('{"query": "q", "documents": []}', "line 1: documents: at least one is needed"),
        ('{"query": "q", "documents": ["a", 1]}', "line 1: documents[1]: expected text, got int"),
        ('{"query": "q", "documents": ["a"]}\n{"query": "q"}', 'line 2: expected {"query"'),
        ("q\ta\nq\n", "line 2: expected two texts with a tab between them"),
    ],
)
def test_a_wrong_query_is_named(remote: Run, stdin: str, message: str) -> None:
    done = remote("rerank", stdin=stdin)
    assert done.code == 2
    assert message in done.err


def test_a_query_without_documents_is_refused(remote: Run) -> None:
    done = remote("rerank", "q", stdin="")
    assert (done.code, done.err) == (2, "pairwire: no documents in the input: at least one is needed\n")


def test_vectors_are_printed_as_numbers(remote: Run) -> None:
    done = remote("embed", "a", "bc")
    assert np.array_equal(np.loadtxt(done.lines, dtype=np.float32), np.stack([vector_of("a"), vector_of("bc")]))


def test_every_plain_line_is_a_text_even_an_empty_one(remote: Run) -> None:
    done = remote("embed", "--json", stdin='a\n\n[bracket\n"quoted" text\n')
    records = [json.loads(line) for line in done.lines]
    assert [record["index"] for record in records] == [0, 1, 2, 3]
    texts = ["a", "", "[bracket", '"quoted" text']
    assert [record["embedding"] for record in records] == [vector_of(text).tolist() for text in texts]


def test_vectors_go_into_a_numpy_file(remote: Run, tmp_path: Path) -> None:
    texts = [f"text {index}" for index in range(1000)]
    path = tmp_path / "vectors.npy"
    done = remote("embed", "-o", str(path), stdin="\n".join(texts))
    assert (done.code, done.out) == (0, "")
    vectors = np.load(path)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.stack([vector_of(text) for text in texts]))
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_run_leaves_no_file_and_keeps_the_old_one(remote: Run, server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "vectors.npy"
    path.write_bytes(b"old")
    server.script.failures = deque([None, Failure(grpc.StatusCode.INTERNAL)])
    assert remote("embed", "-o", str(path), stdin="text\n" * 300).code == 1
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_prompt_travels_by_name(remote: Run, server: FakeServer) -> None:
    server.script.prompts = {"query": "find: "}
    done = remote("embed", "a", "--prompt-name", "query", "--json")
    assert json.loads(done.out)["embedding"] == vector_of("find: a").tolist()
