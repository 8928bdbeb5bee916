"""Small parts that the engine's tests are built of: tokenizers, manifests, cost tables, models over a fake runtime."""

from __future__ import annotations

import functools
import itertools
import string
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from pairwire.server.engine import EngineConfig, Model, build_model
from pairwire.server.engine.batching.buckets import Bucket, Ladder
from pairwire.server.engine.batching.cost import CostTable
from pairwire.server.engine.batching.planner import Plan, PoolView
from pairwire.server.engine.models.manifest import rules_of
from pairwire.server.engine.text.encoder import TextEncoder
from pairwire.server.runtime.base import Runtime
from pairwire.server.runtime.fake import FakeRuntime
from pairwire.v1 import manifest_pb2, scoring_pb2

CORPUS = (
    "the quick brown fox jumps over the lazy dog",
    "how do I bake bread without yeast? mix flour, water and baking soda",
    "Zwei Hunde laufen durch den Park; le chat dort sur le tapis",
    "prices rose by 3.5 % in the second quarter of 2023",
    "猫が敷物の上で寝ている",
)


def wordpiece() -> Tokenizer:
    """BERT's scheme: [CLS] a [SEP] b [SEP], types 0 and 1."""
    return Tokenizer.from_str(_wordpiece())


def byte_bpe() -> Tokenizer:
    """RoBERTa's scheme: <s> a </s></s> b </s>, all types 0, any bytes."""
    return Tokenizer.from_str(_byte_bpe())


def unigram() -> Tokenizer:
    """SentencePiece's scheme with a template of its own: a <sep> b <sep> <cls>, types 0, 1 and 2 as in XLNet."""
    return Tokenizer.from_str(_unigram())


@functools.cache
def _wordpiece() -> str:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=300,
        special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
        initial_alphabet=list(string.printable),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return str(tokenizer.to_str())


@functools.cache
def _byte_bpe() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(sep=("</s>", 2), cls=("<s>", 0), add_prefix_space=False)
    return str(tokenizer.to_str())


@functools.cache
def _unigram() -> str:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=["<unk>", "<pad>", "<sep>", "<cls>"],
        unk_token="<unk>",
        initial_alphabet=list(string.ascii_letters),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2",
        pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", 2), ("<cls>", 3)],
    )
    return str(tokenizer.to_str())


_LETTERS = itertools.cycle(string.ascii_lowercase + string.digits)


def unlike(words: int) -> str:
    """A text of this many words, a token each, that is like none of those before it: equal rows would share a run."""
    return " ".join(itertools.islice(_LETTERS, words))


TOKENIZERS = {"wordpiece": wordpiece, "byte_bpe": byte_bpe, "unigram": unigram}


def cross_encoder_manifest(
    name: str = "toy", *, labels: Sequence[str] = ("LABEL_0",), max_length: int = 64
) -> manifest_pb2.ModelManifest:
    """A cross-encoder without activation."""
    return manifest_pb2.ModelManifest(
        format=1,
        name=name,
        kind=manifest_pb2.MODEL_KIND_CROSS_ENCODER,
        labels=labels,
        activation=scoring_pb2.ACTIVATION_IDENTITY,
        max_length=max_length,
    )


def bi_encoder_manifest(
    name: str = "toy-embedder",
    *,
    dimensions: int = 4,
    max_length: int = 64,
    prompts: Mapping[str, str] | None = None,
    default_prompt_name: str = "",
) -> manifest_pb2.ModelManifest:
    """A bi-encoder."""
    return manifest_pb2.ModelManifest(
        format=1,
        name=name,
        kind=manifest_pb2.MODEL_KIND_BI_ENCODER,
        dimensions=dimensions,
        prompts=prompts or {},
        default_prompt_name=default_prompt_name,
        max_length=max_length,
    )


def linear_costs(
    ladder: Ladder, *, fixed_s: float = 0.001, token_s: float = 0.0001, batch_tokens: int = 512
) -> CostTable:
    """A batch costs ``fixed_s`` plus ``token_s`` for each token, padding included."""
    lengths = (ladder.lengths[0], ladder.lengths[-1])
    rows = {length: (1, max(2, batch_tokens // length)) for length in lengths}
    measured = {
        Bucket(count, length): fixed_s + token_s * count * length for length in lengths for count in rows[length]
    }
    return CostTable(ladder, measured, batch_tokens=batch_tokens)


def toy_model(
    runtime: Runtime | None = None,
    manifest: manifest_pb2.ModelManifest | None = None,
    *,
    token_s: float = 1e-7,
    config: EngineConfig | None = None,
) -> Model:
    """A model over a fake runtime, with a made-up cost table so cheap that no deadline is refused for it."""
    manifest = manifest or cross_encoder_manifest()
    config = config or EngineConfig()
    outputs = len(manifest.labels) or manifest.dimensions
    encoder = TextEncoder(wordpiece(), rules_of(manifest))
    costs = linear_costs(
        Ladder.up_to(manifest.max_length), fixed_s=1e-6, token_s=token_s, batch_tokens=config.batch_token_limit()
    )
    return build_model(manifest, encoder, runtime or FakeRuntime(outputs=outputs), config=config, costs=costs)


def whole_anchor(pool: PoolView) -> Plan:
    """A plan that takes all rows of the anchor's length."""
    rows = int(pool.counts[pool.anchor])
    return Plan(bucket=Bucket(rows, int(pool.lengths[pool.anchor])), takes=((pool.anchor, rows),))
