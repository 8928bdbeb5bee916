"""The interfaces of sentence-transformers over a real server, beside sentence-transformers on the same checkpoints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pairwire.cli.server_process import ServerProcess
from pairwire.client import Client, InvalidInput, TokenIds, WrongModelKind
from tests import checkpoints, embedders
from tests.checkpoints import TEXTS

pytestmark = pytest.mark.slow

PROMPTS = {"query": "how does the dog run: ", "passage": "the river: "}
SAME = 1e-5


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("facades")


@pytest.fixture(scope="module")
def bi_encoder(directory: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    checkpoints.save_bi_encoder(directory / "dense", prompts=PROMPTS, normalize=False)
    return SentenceTransformer(str(directory / "dense"), device="cpu")


@pytest.fixture(scope="module")
def sparse_encoder(directory: Path) -> Any:
    from sentence_transformers import SparseEncoder

    embedders.save_sparse_encoder(directory / "sparse", prompts=PROMPTS)
    return SparseEncoder(str(directory / "sparse"), device="cpu")


@pytest.fixture(scope="module")
def client(directory: Path, bi_encoder: Any, sparse_encoder: Any, cross_encoder_package: Path) -> Iterator[Client]:
    from pairwire.export import ExportConfig, export_checkpoint

    packages = [cross_encoder_package]
    for name in ("dense", "sparse"):
        packages.append(directory / f"{name}-package")
        config = ExportConfig(
            checkpoint=str(directory / name),
            output=packages[-1],
            name=name,
            precisions=("fp32",),
            tune=False,
            parity=False,
        )
        export_checkpoint(config)
    with (
        ServerProcess.serve(packages, "--metrics-port=-1", "--warmup-s=0.02") as server,
        Client(server.address) as found,
    ):
        found.wait_until_ready()
        yield found


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize(
    "named",
    [
        {},
        {"normalize_embeddings": True},
        {"truncate_dim": 9},
        {"truncate_dim": 9, "normalize_embeddings": True},
        {"prompt": "find this: "},
        {"prompt_name": "passage", "precision": None},
        {"prompt": "", "truncate_dim": 32},
    ],
    ids=str,
)
def test_vectors_are_what_sentence_transformers_encodes(
    method: str, named: dict[str, Any], client: Client, bi_encoder: Any
) -> None:
    for texts in (list(TEXTS), TEXTS[0]):
        expected = getattr(bi_encoder, method)(texts, **named)
        found = getattr(client.sentence_encoder("dense"), method)(texts, **named)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        assert found == pytest.approx(expected, abs=SAME)


@pytest.mark.parametrize("named", [{}, {"truncate_dim": 13, "normalize_embeddings": True}], ids=str)
@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_are_what_sentence_transformers_packs(
    precision: str, named: dict[str, Any], client: Client, bi_encoder: Any
) -> None:
    clear = np.abs(bi_encoder.encode(list(TEXTS), **named)) > SAME
    expected = bi_encoder.encode(list(TEXTS), precision=precision, **named)
    found = client.sentence_encoder("dense").encode(list(TEXTS), precision=precision, **named)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    differ = np.unpackbits((found ^ expected).view(np.uint8), axis=1)[:, : clear.shape[1]]
    assert clear.sum() > 0.99 * clear.size
    assert not differ[clear].any()


@pytest.mark.parametrize("dimensions", [None, 13])
@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_integers_are_what_sentence_transformers_quantises_with_the_ranges_of_the_package(
    precision: str, dimensions: int | None, client: Client, bi_encoder: Any
) -> None:
    from sentence_transformers.util import quantize_embeddings

    manifest = client.model("dense").manifest
    ranges = np.array([manifest.int8_low, manifest.int8_high], np.float32)[:, :dimensions]
    floats = bi_encoder.encode(list(TEXTS), truncate_dim=dimensions)
    expected = quantize_embeddings(floats, precision=precision, ranges=ranges)
    found = client.sentence_encoder("dense").encode(list(TEXTS), precision=precision, truncate_dim=dimensions)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    off = np.abs(found.astype(int) - expected.astype(int))
    assert off.max() <= 1  # a number at the edge of two steps
    assert np.mean(off == 0) > 0.98
    assert len(np.unique(found)) > 50


def test_token_ids_encode_as_their_texts(client: Client, bi_encoder: Any) -> None:
    ids = [TokenIds(bi_encoder.tokenizer(text, add_special_tokens=False).input_ids) for text in TEXTS]
    found = client.embed(ids, model="dense").embeddings
    assert np.array_equal(found, client.embed(TEXTS, model="dense").embeddings)
    pairs = [(ids[0], each) for each in ids]
    scored = client.score(pairs).scores
    assert np.array_equal(scored, client.score([(TEXTS[0], text) for text in TEXTS]).scores)
    with pytest.raises(InvalidInput, match="outside the model's vocabulary") as caught:
        client.embed([*ids, TokenIds([1, 10**6])] * 30, model="dense")
    assert caught.value.field == f"texts[{len(TEXTS)}].ids[1]"


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
@pytest.mark.parametrize("named", [{}, {"max_active_dims": 7}, {"prompt": "find this: "}], ids=str)
def test_sparse_vectors_are_what_sentence_transformers_encodes(
    method: str, named: dict[str, Any], client: Client, sparse_encoder: Any
) -> None:
    expected = getattr(sparse_encoder, method)(list(TEXTS), convert_to_sparse_tensor=False, **named).numpy()
    result = getattr(client.sparse_encoder("sparse"), method)(list(TEXTS), **named)
    assert result.shape == expected.shape
    assert result.to_dense() == pytest.approx(expected, abs=SAME)
    assert (result.values > 0).all()
    assert 0 < result.counts.max() <= named.get("max_active_dims", expected.shape[1])


def test_prompts_of_pairs_are_what_sentence_transformers_reads(client: Client, cross_encoder_checkpoint: Path) -> None:
    from sentence_transformers import CrossEncoder

    original, model = CrossEncoder(str(cross_encoder_checkpoint), device="cpu"), client.cross_encoder()
    pairs = [(TEXTS[2], text) for text in TEXTS]
    expected = original.predict(pairs, prompt="find this: ")
    assert model.predict(pairs, prompt="find this: ") == pytest.approx(expected, abs=1e-4)
    assert np.abs(expected - original.predict(pairs)).max() > 0.01  # or a prompt that is lost would pass
    ranked = original.rank(TEXTS[2], list(TEXTS), prompt="find this: ")
    found = model.rank(TEXTS[2], list(TEXTS), prompt="find this: ")
    assert [entry["corpus_id"] for entry in found] == [entry["corpus_id"] for entry in ranked]


def test_what_does_not_go_is_told(client: Client) -> None:
    model = client.sentence_encoder("dense")
    with pytest.raises(InvalidInput, match=r"^dimensions: 33 is not between 1 and 32"):
        model.encode("a", truncate_dim=33)
    with pytest.raises(InvalidInput, match=r"^normalize: the int8 ranges"):
        model.encode("a", precision="int8", normalize_embeddings=True)
    with pytest.raises(WrongModelKind, match="model 'sparse' is a sparse-encoder"):
        client.embed(["a"], model="sparse")
    with pytest.raises(WrongModelKind, match="model 'dense' is a bi-encoder"):
        client.embed_sparse(["a"], model="dense")
