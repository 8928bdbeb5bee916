"""Tiny bi-encoders over decoders and over T5, and sparse encoders, beside those of `tests.checkpoints`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests import architectures, checkpoints, decoders

END = "<|endoftext|>"
"""What the tokenizer of a decoder puts behind every text, and pads with."""


def save_decoder_bi_encoder(
    directory: Path,
    *,
    architecture: str = "qwen3",
    language_model: bool = True,
    pooling: str = "lasttoken",
    include_prompt: bool = True,
    padding_side: str = "left",
    prompts: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Writes a sentence-transformers directory as Qwen3-Embedding's and returns it.

    ``language_model`` saves a ``...ForCausalLM``, of which sentence-transformers drops the head.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoModel, AutoModelForCausalLM

    tokenizer = decoders.tokenizer(padding_side=padding_side)
    tokenizer.backend_tokenizer.post_processor = _ending(tokenizer.pad_token_id)
    torch.manual_seed(seed)
    family = AutoModelForCausalLM if language_model else AutoModel
    model = family.from_config(decoders.config(architecture, tokenizer))
    with torch.no_grad():  # the end of every text is the padding token too, whose vector a new model has as zeros
        model.get_input_embeddings().weight[tokenizer.pad_token_id].normal_(std=model.config.initializer_range)
    plain = directory.with_name(directory.name + "-transformer")
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modules = [
        Transformer(str(plain)),
        Pooling(architectures.HIDDEN, pooling_mode=pooling, include_prompt=include_prompt),
        Normalize(),
    ]
    SentenceTransformer(modules=modules, device="cpu", prompts=dict(prompts or {})).save(
        str(directory), create_model_card=False
    )
    if language_model:
        checkpoints.edit_json(directory / "config.json", architectures=[type(model).__name__])
    # As checkpoints of that kind are published: with a chat template that no text goes through.
    checkpoints.edit_json(directory / "sentence_bert_config.json", modality_config=None, module_output_name=None)
    return directory


def save_instructor(directory: Path, *, prompts: Mapping[str, str], seed: int = 0) -> Path:
    """Writes a directory as INSTRUCTOR's and returns it: T5's encoder, mean without the prompt, Dense, Normalize."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    pieces = architectures.frozen("unigram", post_processor=_t5_ending())
    tokenizer = T5TokenizerFast(tokenizer_object=pieces, extra_ids=0, model_max_length=architectures.POSITIONS)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=architectures.HIDDEN,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        initializer_factor=3.0,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=32,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(seed)
    plain = directory.with_name(directory.name + "-transformer")
    T5EncoderModel(config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modules = [
        Transformer(str(plain)),
        Pooling(architectures.HIDDEN, include_prompt=False),
        Dense(architectures.HIDDEN, 24, bias=False, activation_function=torch.nn.Identity()),
        Normalize(),
    ]
    SentenceTransformer(modules=modules, device="cpu", prompts=dict(prompts)).save(
        str(directory), create_model_card=False
    )
    return directory


def save_routed_sparse_encoder(
    directory: Path,
    *,
    prompts: Mapping[str, str] | None = None,
    default_route: str | None = "document",
    seed: int = 0,
) -> Path:
    """Writes a sparse encoder whose queries are looked up, as OpenSearch's doc-v3 is, and returns its directory."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sentence_transformer.modules import Router
    from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

    plain = save_sparse_encoder(directory.with_name(directory.name + "-documents"), seed=seed)
    documents = list(SparseEncoder(str(plain), device="cpu"))
    tokenizer = documents[0].tokenizer
    rarity = torch.rand(len(tokenizer), generator=torch.Generator().manual_seed(seed)) * 8
    rarity[tokenizer.all_special_ids] = 0  # as there, whose queries have no special tokens anyway
    query = SparseStaticEmbedding(tokenizer, weight=rarity, frozen=True)
    router = Router.for_query_document(
        query_modules=[query], document_modules=documents, default_route=default_route, allow_empty_key=False
    )
    encoder = SparseEncoder(
        modules=[router],
        device="cpu",
        similarity_fn_name="dot",
        prompts=dict(prompts) if prompts else None,
    )
    encoder.save(str(directory), create_model_card=False)
    return directory


def save_embedding_gemma(directory: Path, *, prompts: Mapping[str, str] | None = None, seed: int = 0) -> Path:
    """Writes a directory as EmbeddingGemma's and returns it: Gemma 3 that sees both ways, mean, two Dense, Normalize.

    Two of its three layers see a window of some tokens on either side.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
    from transformers import Gemma3TextConfig, Gemma3TextModel

    tokenizer = architectures.tokenizer("xlm-roberta")  # as Gemma's: <s> before a text and </s> behind it
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=architectures.HIDDEN,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=architectures.POSITIONS,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        initializer_range=0.12,
        use_bidirectional_attention=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    torch.manual_seed(seed)
    plain = directory.with_name(directory.name + "-transformer")
    Gemma3TextModel(config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    checkpoints.edit_json(plain / "config.json", sliding_window=24)  # which is halved whenever it is read
    identity = torch.nn.Identity()
    modules = [
        Transformer(str(plain)),
        Pooling(architectures.HIDDEN),
        Dense(architectures.HIDDEN, 96, bias=False, activation_function=identity),
        Dense(96, architectures.HIDDEN, bias=False, activation_function=identity),
        Normalize(),
    ]
    SentenceTransformer(modules=modules, device="cpu", prompts=dict(prompts) if prompts else None).save(
        str(directory), create_model_card=False
    )
    checkpoints.edit_json(directory / "config.json", sliding_window=24)
    # What transformers takes for Gemma's.
    checkpoints.edit_json(directory / "tokenizer_config.json", padding_side="left")
    return directory


def save_sparse_encoder(
    directory: Path,
    *,
    architecture: str = "bert",
    pooling: str = "max",
    activation: str = "relu",
    prompts: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Writes a SPLADE directory of sentence-transformers and returns it; about half of a text's weights are above 0."""
    import torch
    from sentence_transformers import SparseEncoder
    from sentence_transformers.sentence_transformer.modules import Transformer
    from sentence_transformers.sparse_encoder.modules import SpladePooling
    from transformers import AutoModelForMaskedLM

    tokenizer = architectures.tokenizer(architecture)
    torch.manual_seed(seed)
    model = AutoModelForMaskedLM.from_config(architectures.config(architecture, tokenizer, layers=2))
    with torch.no_grad():
        model.get_output_embeddings().bias.normal_(mean=-1.5, std=0.5)
    plain = directory.with_name(directory.name + "-transformer")
    model.save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modules = [
        Transformer(str(plain), transformer_task="fill-mask"),
        SpladePooling(pooling_strategy=pooling, activation_function=activation),  # type: ignore[arg-type]
    ]
    encoder = SparseEncoder(modules=modules, device="cpu", prompts=dict(prompts or {}))
    encoder.save(str(directory), create_model_card=False)
    return directory


def _t5_ending() -> dict[str, object]:
    end = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    texts = [{"Sequence": {"id": name, "type_id": 0}} for name in "AB"]
    return {
        "type": "TemplateProcessing",
        "single": [texts[0], end],
        "pair": [texts[0], end, texts[1], end],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
    }


def _ending(token: int) -> object:
    from tokenizers.processors import ByteLevel, Sequence, TemplateProcessing

    ending = TemplateProcessing(single=f"$A {END}", pair=f"$A {END} $B:1 {END}:1", special_tokens=[(END, token)])
    return Sequence([ByteLevel(trim_offsets=False), ending])
