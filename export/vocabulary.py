"""Does the checkpoint have an embedding for every token of its tokenizer?

Often it has not: tokens were added, and the embeddings were not resized. What only some texts contain is reported, and
the server refuses those texts; what every row contains, or a prompt or the user's own data, is refused here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pairwire.server.engine.kinds import ModelKind
from pairwire.server.engine.text.encoder import TextEncoder
from pairwire.server.engine.text.vocabulary import NoEmbedding
from pairwire.server.errors import InvalidInput

from .checkpoint.checkpoint import Checkpoint
from .errors import CheckpointUnsupported, DataInvalid
from .texts import BUILT_IN, Input, Texts

_NAMED = 5
"""Most tokens that a sentence lists."""
_WHAT_TO_DO = "resize the embeddings to the tokenizer and train them (model.resize_token_embeddings(len(tokenizer)))"


def check_vocabulary(checkpoint: Checkpoint) -> str:
    """A sentence about the tokens that no text may contain, empty where there are none.

    Raises:
        CheckpointUnsupported: every row, a prompt, or any unknown word would have such a token.
    """
    try:
        encoder = checkpoint.text_encoder()
    except ValueError as error:
        raise CheckpointUnsupported(f"{error}; {_WHAT_TO_DO}") from error
    _check_token_types(checkpoint, encoder)
    tokens = encoder.vocabulary.tokens_beyond()
    if not tokens:
        return ""
    _check_unknown(checkpoint, encoder)
    _check_prompts(checkpoint, encoder)
    named = ", ".join(f"{token!r} ({id})" for id, token in list(tokens.items())[:_NAMED])
    more = f" and {len(tokens) - _NAMED} more" if len(tokens) > _NAMED else ""
    return (
        f"the tokenizer's {named}{more} have no embedding, which ends at {encoder.vocabulary.rows - 1}: a text that has"
        f" one will be refused; {_WHAT_TO_DO} if texts are to have them"
    )


def servable(checkpoint: Checkpoint, texts: Texts, prompts: Sequence[str] = ()) -> Texts:
    """The texts but for those with a token without an embedding, with ``prompts`` or the default one before them.

    Raises:
        DataInvalid: one of the user's has.
        CheckpointUnsupported: most of the built-in ones have: it is the tokenizer of another model.
    """
    encoder = checkpoint.text_encoder()
    if not encoder.vocabulary.tokens_beyond():
        return texts
    kept: list[Input] = []
    for index, item in enumerate(texts.inputs):
        try:
            for prompt in prompts or (checkpoint.default_prompt,):
                _encode(checkpoint, encoder, item, prompt)
        except NoEmbedding as error:
            if texts.origin != BUILT_IN:
                raise DataInvalid(f"{texts.origin}: input {index + 1}: {error}") from error
            continue
        except InvalidInput:  # refused for another reason, which is for those to tell who read it
            pass
        kept.append(item)
    if 2 * len(kept) < len(texts.inputs):
        raise CheckpointUnsupported(
            f"{len(texts.inputs) - len(kept)} of {len(texts.inputs)} built-in texts have tokens without an embedding:"
            f" the tokenizer belongs to another model, or {_WHAT_TO_DO}"
        )
    return Texts(kept, texts.origin)


def _encode(checkpoint: Checkpoint, encoder: TextEncoder, item: Input, prompt: str) -> None:
    if checkpoint.kind is ModelKind.CROSS_ENCODER:
        encoder.encode_pairs([item[0]], [item[1]], prompt=prompt, fields=("first", "second"))
    else:
        encoder.encode_texts([item[0]], prompt=prompt, field="text")


def _check_unknown(checkpoint: Checkpoint, encoder: TextEncoder) -> None:
    unknown = _unknown_id(checkpoint)
    if unknown is not None and unknown >= encoder.vocabulary.rows:
        raise CheckpointUnsupported(
            f"{encoder.vocabulary.name(unknown)} stands for every word that the tokenizer does not know, and has no"
            f" embedding, which ends at {encoder.vocabulary.rows - 1}; {_WHAT_TO_DO}"
        )


def _unknown_id(checkpoint: Checkpoint) -> int | None:
    tokenizer = checkpoint.reference[0].tokenizer
    if not checkpoint.static:
        return None if tokenizer.unk_token_id is None else int(tokenizer.unk_token_id)
    from .checkpoint import static_embeddings  # which needs torch

    return static_embeddings.unknown_id(tokenizer)


def _check_prompts(checkpoint: Checkpoint, encoder: TextEncoder) -> None:
    for name, prompt in checkpoint.prompts.items():
        if beyond := encoder.vocabulary.beyond(encoder.tokenize([prompt])[0]):
            raise CheckpointUnsupported(
                f"prompt {name!r} has {encoder.vocabulary.name(beyond[0])}, and the model has embeddings only for ids"
                f" below {encoder.vocabulary.rows}; {_WHAT_TO_DO}, or take the prompt out of"
                " config_sentence_transformers.json"
            )


def _check_token_types(checkpoint: Checkpoint, encoder: TextEncoder) -> None:
    """The second text of a pair often is of type 1: the model must know that there is one."""
    if checkpoint.static:
        return
    rows = _token_type_rows(checkpoint)
    if rows is None:
        return
    pairs = checkpoint.kind is ModelKind.CROSS_ENCODER
    encoded = encoder.encode_pairs(["a"], ["b"]) if pairs else encoder.encode_texts(["a"])
    most = int(np.max(encoder.assemble([(encoded, 0)], int(encoded.lengths[0])).token_type_ids))
    if max(most, checkpoint.rules.pad_token_type_id) >= rows:
        raise CheckpointUnsupported(
            f"the tokenizer gives tokens the type {most}, and the model has {rows} token types (type_vocab_size);"
            " sentence-transformers cannot run it either: correct the tokenizer or the model"
        )


def _token_type_rows(checkpoint: Checkpoint) -> int | None:
    """None where the model reads no token types."""
    transformer = checkpoint.reference[0]
    if "token_type_ids" not in transformer.tokenizer.model_input_names:
        return None
    for name, module in transformer.model.named_modules():
        if name.endswith("token_type_embeddings") and hasattr(module, "num_embeddings"):
            return int(module.num_embeddings)
    return None
