"""A served model behind the interface of sentence-transformers' SparseEncoder; cross_encoder.py has the rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .drop_in import DOCUMENT_PROMPTS, QUERY_PROMPTS, PromptNames, check_batch_size, refuse_tensors, renamed
from .errors import InvalidInput
from .given import several
from .inputs import Given, InputType, check_count
from .results import SparseEmbedResult
from .token_ids import TokenIds

if TYPE_CHECKING:
    from .sync import Client


class SparseEncoder:
    """What sentence-transformers' SparseEncoder computes, without torch; made by ``Client.sparse_encoder``.

    In place of a torch tensor it returns a `SparseEmbedResult`, also for one text: its ``rows()`` are indices and
    values, ``to_dense()`` is a matrix.
    """

    def __init__(self, client: Client, model: str) -> None:
        self._client = client
        self._model = model
        self._prompts = PromptNames(client, model, "sparse-encoder")

    @renamed(sentences="inputs")
    def encode(
        self,
        inputs: Iterable[Given] | Given,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = False,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: object | None = None,
        max_active_dims: int | None = None,
        pool: object | None = None,
        chunk_size: int | None = None,
        *,
        task: InputType | None = None,
    ) -> SparseEmbedResult:
        """Sparse vectors of texts, in input order.

        ``prompt`` is put before every text, and wins over ``prompt_name``. ``task`` says what the texts are to a model
        that reads queries in another way than documents. ``max_active_dims`` keeps this many of the
        largest weights of each text. ``batch_size``, ``show_progress_bar``, ``device``, ``pool``, ``chunk_size``,
        and what is said about sparse tensors mean nothing here.

        Raises:
            InvalidInput: no texts, something that is none, an unknown prompt, or something that only torch can serve.
            WrongModelKind: no sparse encoder.
        """
        check_batch_size(batch_size)
        refuse_tensors(True, convert_to_tensor, "to_dense")
        check_count("max_active_dims", max_active_dims)
        texts = [inputs] if isinstance(inputs, str | TokenIds) else list(several("inputs", inputs))
        if not texts:
            raise InvalidInput.at("inputs", "at least one is needed")
        return self._client.embed_sparse(
            texts,
            model=self._model,
            prompt_name=prompt_name if prompt is None else None,
            prompt=prompt,
            max_active_dims=max_active_dims,
            input_type=task,
        )

    @renamed(sentences="inputs")
    def encode_query(
        self,
        inputs: Iterable[Given] | Given,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = False,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: object | None = None,
        max_active_dims: int | None = None,
        pool: object | None = None,
        chunk_size: int | None = None,
    ) -> SparseEmbedResult:
        """``encode`` of queries, with the checkpoint's prompt named "query", unless another is asked for."""
        return self.encode(
            inputs,
            prompt_name=self._prompts.choose(QUERY_PROMPTS, prompt_name, prompt),
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            convert_to_tensor=convert_to_tensor,
            convert_to_sparse_tensor=convert_to_sparse_tensor,
            save_to_cpu=save_to_cpu,
            device=device,
            max_active_dims=max_active_dims,
            task="query",
        )

    @renamed(sentences="inputs")
    def encode_document(
        self,
        inputs: Iterable[Given] | Given,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        convert_to_tensor: bool = False,
        convert_to_sparse_tensor: bool = True,
        save_to_cpu: bool = False,
        device: object | None = None,
        max_active_dims: int | None = None,
        pool: object | None = None,
        chunk_size: int | None = None,
    ) -> SparseEmbedResult:
        """``encode`` of documents, with the prompt named "document", "passage" or "corpus", unless one is asked for."""
        return self.encode(
            inputs,
            prompt_name=self._prompts.choose(DOCUMENT_PROMPTS, prompt_name, prompt),
            prompt=prompt,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
            convert_to_tensor=convert_to_tensor,
            convert_to_sparse_tensor=convert_to_sparse_tensor,
            save_to_cpu=save_to_cpu,
            device=device,
            max_active_dims=max_active_dims,
            task="document",
        )
