"""What the integrations share: clients that are made when they are needed, and the prompts of queries and documents."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from pairwire.client import AsyncClient, Client, ClientOptions
from pairwire.client.drop_in import DOCUMENT_PROMPTS, QUERY_PROMPTS


class Clients:
    """A blocking client, and an asyncio one for each event loop that asks. Nothing connects before the first call."""

    def __init__(self, address: str, options: ClientOptions | None = None) -> None:
        self._address = address
        self._options = options
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._of_loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncClient] = weakref.WeakKeyDictionary()

    def blocking(self) -> Client:
        """The blocking client."""
        with self._lock:
            if self._client is None:
                self._client = Client(self._address, options=self._options)
            return self._client

    def of_loop(self) -> AsyncClient:
        """The asyncio client of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._of_loops:
                self._of_loops[loop] = AsyncClient(self._address, options=self._options)
            return self._of_loops[loop]

    def close(self) -> None:
        """Closes the blocking client; the next call makes another."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Closes the asyncio client of the running event loop, and the blocking one."""
        with self._lock:
            client = self._of_loops.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()
        self.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How queries and documents become vectors."""

    model: str = ""
    """May be empty where the server has exactly one bi-encoder."""
    query_prompt_name: str | None = None
    """The checkpoint's prompt before queries. None means, as in sentence-transformers, "query" where there is one."""
    document_prompt_name: str | None = None
    """Before documents: None means the first of "document", "passage" and "corpus" that there is."""
    dimensions: int | None = None
    """Matryoshka: how many of the first numbers of each vector are kept."""
    normalize: bool | None = None
    """Unit length; None means as the checkpoint does."""


class Embedder:
    """Vectors of queries and documents, each with the prompt that the checkpoint has for it."""

    def __init__(self, clients: Clients, reading: Reading) -> None:
        self._clients = clients
        self._reading = reading
        self._known: frozenset[str] | None = None

    def query(self, text: str) -> list[float]:
        """The vector of a query."""
        return self._embed([text], self._reading.query_prompt_name, QUERY_PROMPTS)[0]

    def documents(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of documents; none of none."""
        return self._embed(texts, self._reading.document_prompt_name, DOCUMENT_PROMPTS)

    async def aquery(self, text: str) -> list[float]:
        """As ``query``."""
        return (await self._aembed([text], self._reading.query_prompt_name, QUERY_PROMPTS))[0]

    async def adocuments(self, texts: Sequence[str]) -> list[list[float]]:
        """As ``documents``."""
        return await self._aembed(texts, self._reading.document_prompt_name, DOCUMENT_PROMPTS)

    def _embed(self, texts: Sequence[str], chosen: str | None, names: Sequence[str]) -> list[list[float]]:
        if not texts:
            return []
        client, how = self._clients.blocking(), self._reading
        if chosen is None and self._known is None:
            name = how.model or _only([(each.name, each.kind) for each in client.models()])
            self._known = frozenset(client.model(name).manifest.prompts)
        found = client.embed(
            texts,
            model=how.model,
            prompt_name=self._prompt(chosen, names),
            dimensions=how.dimensions,
            normalize=how.normalize,
        )
        vectors: list[list[float]] = found.embeddings.tolist()
        return vectors

    async def _aembed(self, texts: Sequence[str], chosen: str | None, names: Sequence[str]) -> list[list[float]]:
        if not texts:
            return []
        client, how = self._clients.of_loop(), self._reading
        if chosen is None and self._known is None:
            name = how.model or _only([(each.name, each.kind) for each in await client.models()])
            self._known = frozenset((await client.model(name)).manifest.prompts)
        found = await client.embed(
            texts,
            model=how.model,
            prompt_name=self._prompt(chosen, names),
            dimensions=how.dimensions,
            normalize=how.normalize,
        )
        vectors: list[list[float]] = found.embeddings.tolist()
        return vectors

    def _prompt(self, chosen: str | None, names: Sequence[str]) -> str | None:
        return chosen if chosen is not None else next((name for name in names if name in (self._known or ())), None)


def _only(models: Sequence[tuple[str, str]]) -> str:
    """The one bi-encoder; the server says what is wrong where there is another number of them."""
    names = [name for name, kind in models if kind == "bi-encoder"]
    return names[0] if len(names) == 1 else ""
