import grpc
from given import EXPECTED, SERVER, refused
from haystack import Document
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
)
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.huggingface_api.ranker import TruncationDirection

documents = [Document(content=text, meta={"at": at}) for at, text in enumerate(EXPECTED.documents)]
ranker = HuggingFaceTEIRanker(url=SERVER, use_grpc=True, raw_scores=True)
found = ranker.run(query=EXPECTED.query, documents=documents)["documents"]
assert [each.meta["at"] for each in found] != [0, 1, 2, 3, 4]
for document in found:  # grpc_requests writes numbers with the digits that tell floats apart
    assert abs(document.score - EXPECTED.logits[document.meta["at"]]) < 1e-5
assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
long = [Document(content=EXPECTED.long)]
for direction in TruncationDirection:
    assert ranker.run(query="a", documents=long, truncation_direction=direction)["documents"]
refused(grpc.RpcError, lambda: ranker.run(query="a", documents=long), "texts[0]: ", "exceed max_length")

where = {"api_type": "text_embeddings_inference", "api_params": {"url": SERVER}, "use_grpc": True}
vector = HuggingFaceAPITextEmbedder(**where).run(text=EXPECTED.documents[0])["embedding"]
assert len(vector) == len(EXPECTED.vectors[0])
embedded = HuggingFaceAPIDocumentEmbedder(**where, progress_bar=False).run(documents=documents)["documents"]
for document, expected in zip(embedded, EXPECTED.vectors, strict=True):
    assert all(abs(a - b) < 1e-3 for a, b in zip(document.embedding, expected, strict=True))
