"""A served model behind the interface of sentence-transformers' SentenceTransformer; cross_encoder.py has the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .cross_encoder import refuse_tensors
from .errors import InvalidInput
from .inputs import check_count
from .results import Float32Array

if TYPE_CHECKING:
    from .sync import Client

_DOCUMENT_PROMPTS = ("document", "passage", "corpus")


class SentenceEncoder:
    """What sentence-transformers' SentenceTransformer returns; made by ``Client.sentence_encoder``."""

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._prompts: dict[str, str] | None = None

    def encode(
        self,
        sentences: Sequence[str] | str,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: object | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
    ) -> Float32Array:
        """Vectors of texts: float32 [texts, dimensions]; one text instead of a list gives [dimensions].

        ``prompt`` must be the text of one of the checkpoint's prompts (put any other before the texts yourself).
        ``truncate_dim`` keeps the first dimensions, and ``normalize_embeddings`` makes unit vectors of what is left.
        ``batch_size``, ``show_progress_bar`` and ``device`` mean nothing here.

        Raises:
            InvalidInput: not texts, an unknown prompt, or something that only torch can serve.
        """
        if batch_size <= 0:
            raise ValueError(f"batch_size must be a positive integer, got {batch_size}")
        refuse_tensors(convert_to_numpy, convert_to_tensor, "encode")
        if output_value != "sentence_embedding":
            raise InvalidInput.at("output_value", f"{output_value!r} does not travel; only 'sentence_embedding' does")
        if precision not in (None, "float32"):
            raise InvalidInput.at(
                "precision",
                f"{precision!r} does not travel; quantise what float32 returns, e.g. with quantize_embeddings",
            )
        check_count("truncate_dim", truncate_dim)
        single = isinstance(sentences, str)
        texts = [sentences] if isinstance(sentences, str) else list(sentences)
        if not texts:
            return np.array([], dtype=np.float32)
        if prompt is not None:
            prompt_name = self._name_of(prompt)
        vectors = self._client.embed(texts, model=self._model, prompt_name=prompt_name).embeddings[:, :truncate_dim]
        if normalize_embeddings:
            vectors = _unit(vectors)
        return vectors[0] if single else vectors

    def encode_query(self, sentences: Sequence[str] | str, *, normalize_embeddings: bool = False) -> Float32Array:
        """``encode`` with the checkpoint's prompt named "query", where it has one."""
        name = "query" if "query" in self._known_prompts() else None
        return self.encode(sentences, prompt_name=name, normalize_embeddings=normalize_embeddings)

    def encode_document(self, sentences: Sequence[str] | str, *, normalize_embeddings: bool = False) -> Float32Array:
        """``encode`` with the checkpoint's prompt named "document", "passage" or "corpus", where it has one."""
        known = self._known_prompts()
        name = next((name for name in _DOCUMENT_PROMPTS if name in known), None)
        return self.encode(sentences, prompt_name=name, normalize_embeddings=normalize_embeddings)

    def _known_prompts(self) -> dict[str, str]:
        if self._prompts is None:
            self._prompts = dict(self._client.model(self._model).manifest.prompts)
        return self._prompts

    def _name_of(self, prompt: str) -> str:
        known = self._known_prompts()
        for name, text in known.items():
            if text == prompt:
                return name
        raise InvalidInput.at(
            "prompt",
            f"not one of the checkpoint's prompts ({', '.join(sorted(known)) or 'it has none'}); "
            "put the text before each sentence yourself",
        )


def _unit(vectors: Float32Array) -> Float32Array:
    """Rows of length 1 (rows of zeros stay), as torch.nn.functional.normalize does."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Float32Array = vectors / np.maximum(lengths, np.float32(1e-12))
    return unit
