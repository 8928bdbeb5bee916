import grpc
from given import EXPECTED, SERVER, refused
from grpc_requests import Client

client = Client(SERVER)
names = {"tei.v1.Rerank", "tei.v1.Embed", "inference.GRPCInferenceService", "pairwire.v1.ScoringService"}
assert names <= set(client.service_names), client.service_names
asked = {"query": EXPECTED.query, "texts": EXPECTED.documents, "raw_scores": True}
ranks = client.request("tei.v1.Rerank", "Rerank", asked)["ranks"]
assert {each.get("index", 0): each["score"] for each in ranks}.keys() == set(range(len(EXPECTED.documents)))
streamed = list(client.request("tei.v1.Embed", "EmbedStream", [{"inputs": text} for text in EXPECTED.documents]))
assert len(streamed) == len(EXPECTED.documents)
refused(
    grpc.RpcError,
    lambda: client.request("tei.v1.Rerank", "Rerank", {"query": "a", "texts": []}),
    "texts: empty; give at least one",
)
