"""A served model behind the interface of sentence-transformers' SentenceTransformer; cross_encoder.py has the rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from .drop_in import DOCUMENT_PROMPTS, QUERY_PROMPTS, PromptNames, check_batch_size, refuse_tensors, renamed
from .errors import InvalidInput
from .given import several
from .inputs import Encoding, Given, check_choice, check_count
from .results import VectorArray
from .token_ids import TokenIds

if TYPE_CHECKING:
    from .sync import Client

Precision: TypeAlias = Literal["float32", "int8", "uint8", "binary", "ubinary"]

_ENCODINGS: dict[str, Encoding] = {
    "float32": "float32",
    "int8": "int8",
    "uint8": "int8",
    "binary": "binary",
    "ubinary": "binary",
}
_TOP_BIT = np.uint8(128)


class SentenceEncoder:
    """What sentence-transformers' SentenceTransformer returns; made by ``Client.sentence_encoder``."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._prompts = PromptNames(client, model, "bi-encoder")

    @renamed(sentences="inputs")
    def encode(
        self,
        inputs: Iterable[Given] | Given,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: object | None = None,
        chunk_size: int | None = None,
        *,
        task: str | None = None,
    ) -> VectorArray:
        """Vectors of texts: float32 [texts, dimensions]; one text instead of a list gives [dimensions].

        ``prompt`` is put before every text, and wins over ``prompt_name``. ``truncate_dim`` keeps the first dimensions,
        and ``normalize_embeddings`` makes unit vectors of what is left. ``batch_size``, ``show_progress_bar``,
        ``device``, ``pool``, ``chunk_size`` and ``task`` mean nothing here.

        ``precision`` "ubinary" and "binary" give what sentence-transformers gives: uint8, or int8 shifted by 128,
        [texts, ceil(dimensions / 8)]. "int8" and "uint8" [texts, dimensions] are quantised as by its
        ``quantize_embeddings`` with the ranges that the package brings along; sentence-transformers itself takes the
        ranges from the very texts of the call, so that the same text becomes other numbers among other texts. The
        ranges are those of the vectors as the model gives them: they do not go with ``normalize_embeddings``.

        Raises:
            InvalidInput: not texts, an unknown prompt, more dimensions than there are, or something that only torch can
                serve.
            WrongModelKind: no bi-encoder, or int8 of a package without ranges.
        """
        check_batch_size(batch_size)
        refuse_tensors(convert_to_numpy, convert_to_tensor, "encode")
        if output_value != "sentence_embedding":
            raise InvalidInput.at("output_value", f"{output_value!r} does not travel; only 'sentence_embedding' does")
        check_choice("precision", precision, list(_ENCODINGS))
        check_count("truncate_dim", truncate_dim)
        single = isinstance(inputs, str | TokenIds)
        texts = [inputs] if isinstance(inputs, str | TokenIds) else list(several("inputs", inputs))
        if not texts:
            return np.array([], dtype=np.float32)
        found = self._client.embed(
            texts,
            model=self._model,
            prompt_name=prompt_name if prompt is None else None,
            prompt=prompt,
            dimensions=truncate_dim,
            normalize=normalize_embeddings or None,
            encoding=_ENCODINGS[precision or "float32"],
        )
        vectors = _of_precision(found.embeddings, precision)
        return vectors[0] if single else vectors

    @renamed(sentences="inputs")
    def encode_query(
        self,
        inputs: Iterable[Given] | Given,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: object | None = None,
        chunk_size: int | None = None,
    ) -> VectorArray:
        """``encode`` with the checkpoint's prompt named "query", where it has one and no other is asked for."""
        return self.encode(
            inputs,
            prompt_name=self._prompts.choose(QUERY_PROMPTS, prompt_name, prompt),
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            precision=precision,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            device=device,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
        )

    @renamed(sentences="inputs")
    def encode_document(
        self,
        inputs: Iterable[Given] | Given,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: Precision | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: object | None = None,
        chunk_size: int | None = None,
    ) -> VectorArray:
        """``encode`` with the checkpoint's prompt named "document", "passage" or "corpus", unless one is asked for."""
        return self.encode(
            inputs,
            prompt_name=self._prompts.choose(DOCUMENT_PROMPTS, prompt_name, prompt),
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            output_value=output_value,
            precision=precision,
            convert_to_numpy=convert_to_numpy,
            convert_to_tensor=convert_to_tensor,
            device=device,
            normalize_embeddings=normalize_embeddings,
            truncate_dim=truncate_dim,
        )


def _of_precision(vectors: VectorArray, precision: Precision | None) -> VectorArray:
    """The signed or the unsigned form: one is the other with its top bit the other way round."""
    if precision == "uint8":
        return vectors.view(np.uint8) ^ _TOP_BIT
    if precision == "binary":
        return (vectors.view(np.uint8) ^ _TOP_BIT).view(np.int8)
    return vectors
