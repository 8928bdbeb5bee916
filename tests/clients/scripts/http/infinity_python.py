"""infinity-client: embeddings and rerank."""

import json
import os
from pathlib import Path

from infinity_client import Client
from infinity_client.api.default import embeddings, rerank
from infinity_client.models import OpenAIEmbeddingInputText, RerankInput

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())
client = Client(base_url=URL)
with client:
    body = OpenAIEmbeddingInputText(input_=expected["documents"], model="mini")
    found = embeddings.sync(client=client, body=body)
    assert [len(each.embedding) for each in found.data] == [8] * len(expected["documents"])
    ranked = rerank.sync(
        client=client, body=RerankInput(query=expected["query"], documents=expected["documents"], model="demo")
    )
    assert len(ranked.results) == len(expected["documents"])
    assert ranked.usage.total_tokens > 0
    refused = rerank.sync_detailed(client=client, body=RerankInput(query="a", documents=["b"], model="nope"))
    assert refused.status_code == 404
