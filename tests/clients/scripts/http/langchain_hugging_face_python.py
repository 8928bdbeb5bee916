"""langchain-huggingface: its embeddings over Hugging Face's client."""

import json
import os
from pathlib import Path

from huggingface_hub import InferenceClient
from langchain_huggingface import HuggingFaceEndpointEmbeddings

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())

embeddings = HuggingFaceEndpointEmbeddings(model="any/name", huggingfacehub_api_token="whatever")
embeddings.client = InferenceClient(model=URL)  # it takes no address itself since 1.0
assert len(embeddings.embed_documents(expected["documents"])) == len(expected["documents"])
assert len(embeddings.embed_query("one")) == 8
