"""What is this checkpoint? Kind, limits, labels, activation, pooling, prompts, tokenizer.

The checkpoint is loaded once by the library whose scores are to be kept, and the answers are taken from the loaded
object, so every rule of precedence between configuration files is that library's own. The loaded object is also what
parity is measured against. What Pairwire cannot serve exactly is refused here, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.outputs.heads import Activation, Head
from pairwire.server.engine.text.encoder import EncodedRows, TextEncoder, TextRules
from pairwire.server.errors import ConfigInvalid

from ..config import AskedScore
from ..errors import CheckpointUnsupported
from ..texts import Input
from . import adapter_layers, bi_encoders, chat_templates, cross_encoders, own_code, sparse_encoders, token_types
from .adapter import Adapted
from .loading import load_reference
from .own_code import OwnCode
from .source import Source, read_json

_POSITION_TABLES = ("position_embeddings", "position_embedding", "embed_positions", "wpe")
"""What models call a table of vectors, one for each position."""
if TYPE_CHECKING:
    from .routers import Queries

_HEAD = "ForSequenceClassification"
_LANGUAGE_MODEL = "ForCausalLM"
"""Without modules, sentence-transformers takes it for a reranker that answers "yes" or "no"."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint and everything that a package says about it."""

    kind: ModelKind
    source: Source
    directory: Path
    """What was loaded: the source's directory, or the one that an adapter stands on."""
    reference: Any
    """``CrossEncoder``, ``SentenceTransformer`` or ``SparseEncoder``, on the CPU in float32.

    It cuts at ``rules.max_length``.
    """
    architecture: str
    """transformers' model type."""
    rules: TextRules
    tokenizer_json: str
    """The fast tokenizer that the reference really uses, without truncation and padding."""
    trust_remote_code: bool = False
    own_code: OwnCode | None = None
    """Code that came with the checkpoint and has run."""
    adapted: Adapted | None = None
    """The adapter, where the checkpoint is one."""
    warnings: Sequence[str] = ()
    """What a person should know of it; each is a sentence."""
    labels: Sequence[str] = ()
    activation: Activation = Activation.IDENTITY
    scale: float = 1.0
    bias: float = 0.0
    """What the checkpoint itself makes of its graph's logits before the activation."""
    asked: AskedScore = field(default_factory=AskedScore)
    dimensions: int = 0
    pooling: Sequence[str] = ()
    normalized: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt_name: str = ""
    similarity: str = ""
    default_dimensions: int = 0
    """Bi-encoders: numbers that vectors are cut to unless others are asked for; 0 for all."""
    max_active_dims: int = 0
    """Sparse encoders: most weights of a vector unless another number is asked for; 0 for all."""
    queries: Queries | None = None
    """Sparse encoders whose queries need no model; all else here is about documents then."""

    @property
    def default_prompt(self) -> str:
        """The text put before every input unless another prompt is asked for."""
        return self.prompts.get(self.default_prompt_name, "")

    @property
    def head(self) -> Head:
        """How the server makes scores of the graph's logits: what the checkpoint does, then what was asked for."""
        asked = self.asked
        return Head(asked.activation or self.activation, asked.scale * self.scale, asked.scale * self.bias + asked.bias)

    @property
    def static(self) -> bool:
        """Whether there is no transformer: a text's vector is the mean of rows of a table."""
        return self.rules.empty_token_id is not None

    def release(self) -> None:
        """Gives up the weights of ``reference``; its tokenizer and its configuration stay."""
        self.reference.to("meta")

    def text_encoder(self) -> TextEncoder:
        """The serving code's tokenisation of this checkpoint."""
        from tokenizers import Tokenizer

        return TextEncoder(Tokenizer.from_str(self.tokenizer_json), self.rules)


def open_checkpoint(
    source: Source,
    directory: Path,
    *,
    kind: ModelKind | None = None,
    max_length: int | None = None,
    trust_remote_code: bool = False,
    adapted: Adapted | None = None,
    asked: AskedScore | None = None,
) -> Checkpoint:
    """Loads the checkpoint in ``directory``, or the adapter over it.

    Raises:
        CheckpointUnsupported: not a checkpoint of text pairs or texts that Pairwire can serve exactly.
        ConfigInvalid: a score is ``asked`` for that the kind does not give.
    """
    kind = detect_kind(directory, kind) if adapted is None or adapted.kind is None else adapted.kind
    asked = asked or AskedScore()
    if asked.anything and kind is not ModelKind.CROSS_ENCODER:
        raise ConfigInvalid(f"activation, score-scale, score-bias: about scores of pairs, and this is a {kind.value}")
    reference = load_reference(directory, kind, trust_remote_code=trust_remote_code, adapted=adapted)
    queries = None
    if kind is ModelKind.SPARSE_ENCODER:
        from . import routers  # which needs torch

        queries, reference = routers.queries_of(reference, max_length), routers.documents_of(reference)
    if kind is ModelKind.BI_ENCODER and _is_static(reference):
        return _static(source, directory, reference, max_length, trust_remote_code)
    transformer = _transformer(reference, kind)
    tokenizer = transformer.tokenizer
    _check_text_stage(transformer, tokenizer)
    limit = _max_length(reference, transformer.model, max_length)
    reference.max_seq_length = limit
    common: dict[str, Any] = {
        "kind": kind,
        "source": source,
        "directory": directory,
        "reference": reference,
        "architecture": str(transformer.config.model_type),
        "rules": TextRules(
            max_length=limit,
            pad_token_id=int(tokenizer.pad_token_id),
            pad_token_type_id=int(tokenizer.pad_token_type_id),
            truncate_left=tokenizer.truncation_side == "left",
            prompt_excluded=kind is ModelKind.BI_ENCODER and bi_encoders.leaves_out_prompt(reference),
            vocab_size=int(adapter_layers.bare(transformer.model.get_input_embeddings()).num_embeddings),
        ),
        "tokenizer_json": _plain_tokenizer(tokenizer),
        "trust_remote_code": trust_remote_code,
        "own_code": own_code.ran(reference),
        "adapted": adapted,
        "warnings": [] if adapted is None else adapted.warnings,
    }
    if kind is ModelKind.CROSS_ENCODER:
        described = cross_encoders.describe(directory, reference)
        if asked.activation is Activation.SOFTMAX and len(described["labels"]) == 1:
            raise ConfigInvalid("activation: softmax over one label makes every score 1; sigmoid or identity")
        common["rules"] = replace(common["rules"], template=cross_encoders.template_of(reference))
        common["warnings"] += cross_encoders.warnings_of(reference, asked)
        return Checkpoint(**common, **described, asked=asked)
    if kind is ModelKind.SPARSE_ENCODER:
        described = sparse_encoders.describe(reference)
        if queries is not None and len(queries.weights) != described["dimensions"]:
            raise CheckpointUnsupported(
                f"queries have weights for {len(queries.weights)} tokens, and documents for {described['dimensions']};"
                " they cannot be compared"
            )
        return Checkpoint(**common, **described, queries=queries)
    return Checkpoint(**common, **bi_encoders.describe(reference))


def detect_kind(directory: Path, given: ModelKind | None = None) -> ModelKind:
    """Cross-encoder, bi-encoder or sparse encoder, by the checkpoint's files; ``given`` decides where they do not say.

    Raises:
        CheckpointUnsupported: no transformers checkpoint there, neither kind, or not the given one.
    """
    config = read_json(directory / "config.json")
    if not config and not (directory / "modules.json").is_file():
        raise CheckpointUnsupported(f"{directory.name}: neither config.json nor modules.json; not a checkpoint")
    model_type = read_json(directory / "config_sentence_transformers.json").get("model_type")
    if model_type == "SparseEncoder":
        if given not in (None, ModelKind.SPARSE_ENCODER):
            raise CheckpointUnsupported(f"{directory.name}: asked for a {given.value}, but it is a sparse encoder")
        return ModelKind.SPARSE_ENCODER
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise CheckpointUnsupported(
            f"{directory.name}: config.json: architectures {architectures!r}; expected a list of names"
        )
    has_head = any(str(name).endswith(_HEAD) for name in architectures)
    if given is ModelKind.SPARSE_ENCODER:
        return sparse_encoders.check_plain(directory, architectures)
    has_head = has_head or bool(architectures and str(architectures[0]).endswith(_LANGUAGE_MODEL))
    if model_type == "CrossEncoder" or (has_head and not (directory / "modules.json").is_file()):
        found = ModelKind.CROSS_ENCODER
    elif (directory / "modules.json").is_file():
        found = ModelKind.BI_ENCODER
    elif given is ModelKind.BI_ENCODER or (given is ModelKind.CROSS_ENCODER and not architectures):
        return given
    else:
        raise CheckpointUnsupported(
            f"{directory.name}: no classification head (architecture {', '.join(architectures) or 'not named'}) and no"
            " modules.json; --kind bi-encoder serves the mean of its token vectors, as sentence-transformers would"
            + ("" if architectures else ", --kind cross-encoder the scores of its classifier, if it has one")
        )
    if given is ModelKind.CROSS_ENCODER and found is ModelKind.BI_ENCODER and not has_head:
        raise CheckpointUnsupported(f"{directory.name}: asked for a cross-encoder, but it has no classification head")
    return given or found


def _is_static(reference: Any) -> bool:
    from . import static_embeddings  # which needs torch

    return static_embeddings.is_static(reference)


def _static(
    source: Source, directory: Path, reference: Any, max_length: int | None, trust_remote_code: bool
) -> Checkpoint:
    from . import static_embeddings

    described = bi_encoders.describe(reference)
    rules, tokenizer, warnings = static_embeddings.read(reference, max_length)
    return Checkpoint(
        kind=ModelKind.BI_ENCODER,
        source=source,
        directory=directory,
        reference=reference,
        architecture=static_embeddings.ARCHITECTURE,
        rules=rules,
        tokenizer_json=tokenizer,
        trust_remote_code=trust_remote_code,
        warnings=warnings,
        **described,
    )


def _transformer(reference: Any, kind: ModelKind) -> Any:
    """The first module, which must be the text transformer."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    modules = [type(module).__name__ for module in reference]
    first = reference[0]
    if not isinstance(first, Transformer):
        raise CheckpointUnsupported(f"the first module is {modules[0]}; expected a Transformer that reads text")
    if kind is ModelKind.CROSS_ENCODER:
        cross_encoders.form_of(reference)
    elif list(first.modality_config) != ["text"]:
        raise CheckpointUnsupported(f"it reads {', '.join(first.modality_config)}; expected plain text only")
    return first


def _check_text_stage(transformer: Any, tokenizer: Any) -> None:
    if tokenizer is None or not tokenizer.is_fast:
        raise CheckpointUnsupported(
            f"{type(tokenizer).__name__} is a slow (Python) tokenizer; save a tokenizer.json next to it first:"
            " AutoTokenizer.from_pretrained(..., use_fast=True).save_pretrained(...)"
        )
    if tokenizer.pad_token_id is None:
        raise CheckpointUnsupported("the tokenizer has no padding token, so texts cannot share a batch")
    if tokenizer.padding_side != "right" and _counts_positions(transformer.model):
        raise CheckpointUnsupported(f"padding on the {tokenizer.padding_side}; Pairwire pads on the right")
    chat_templates.check_options(transformer)


def _counts_positions(model: Any) -> bool:
    """Whether a token's vector says how many stand before it, padding included; not only how far two are apart."""
    import torch

    layers = {name: adapter_layers.bare(layer) for name, layer in model.named_modules()}
    tables = [name for name, layer in layers.items() if isinstance(layer, torch.nn.Embedding)]
    return any(name.endswith(_POSITION_TABLES) for name in tables)


def _max_length(reference: Any, model: Any, wanted: int | None) -> int:
    """Tokens that the checkpoint really reads, or the fewer that are wanted."""
    import torch

    from . import decoders

    limits = [int(reference.max_seq_length)] if reference.max_seq_length else []
    for name, layer in model.named_modules():
        module = adapter_layers.bare(layer)
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kin count positions from padding_idx + 1: 514 positions are 512 tokens.
            limits.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    if wanted is None and limits and decoders.is_decoder(model) and min(limits) > decoders.MOST_TOKENS:
        raise CheckpointUnsupported(
            f"a decoder whose positions end at {min(limits)} tokens, which no batch here can hold; give --max-length,"
            f" e.g. {decoders.MOST_TOKENS}"
        )
    if not limits or min(limits) > 1_000_000:
        if wanted is None:
            raise CheckpointUnsupported("the checkpoint names no maximum length; give --max-length")
        return wanted
    if wanted is not None and wanted > min(limits):
        raise CheckpointUnsupported(
            f"max-length {wanted} is more than the checkpoint reads: at most {min(limits)} tokens"
        )
    return wanted or min(limits)


def _plain_tokenizer(tokenizer: Any) -> str:
    """The backend tokenizer as transformers has configured it: tokenizer_config.json may differ from tokenizer.json."""
    from tokenizers import Tokenizer

    content = tokenizer.backend_tokenizer.to_str()
    if "token_type_ids" not in tokenizer.model_input_names:
        # The model is given none and takes all for 0, whatever the tokenizer says of the second text of a pair.
        content = token_types.without(content)
    plain = Tokenizer.from_str(content)
    plain.no_truncation()
    plain.no_padding()
    return str(plain.to_str())


def encode(encoder: TextEncoder, inputs: Sequence[Input], checkpoint: Checkpoint) -> EncodedRows:
    """Rows of pairs or, with the checkpoint's default prompt before them, of single texts."""
    if checkpoint.kind is ModelKind.CROSS_ENCODER:
        firsts, seconds = [item[0] for item in inputs], [item[1] for item in inputs]
        return encoder.encode_pairs(firsts, seconds, prompt=checkpoint.default_prompt)
    return encoder.encode_texts([item[0] for item in inputs], prompt=checkpoint.default_prompt)
