import base64
import json
import subprocess

from given import EXPECTED, SERVER


def grpcurl(*arguments):
    return subprocess.run(["grpcurl", "-plaintext", *arguments], capture_output=True, text=True, check=False)


listed = grpcurl(SERVER, "list").stdout.split()
assert {"tei.v1.Rerank", "inference.GRPCInferenceService"} <= set(listed), listed
assert "rpc ModelInfer" in grpcurl(SERVER, "describe", "inference.GRPCInferenceService").stdout
texts = [base64.b64encode(text.encode()).decode() for text in EXPECTED.documents]
query = base64.b64encode(EXPECTED.query.encode()).decode()
request = {
    "model_name": "demo",
    "inputs": [
        {"name": "query", "datatype": "BYTES", "shape": [1], "contents": {"bytes_contents": [query]}},
        {"name": "documents", "datatype": "BYTES", "shape": [len(texts)], "contents": {"bytes_contents": texts}},
    ],
}
done = grpcurl("-d", json.dumps(request), SERVER, "inference.GRPCInferenceService/ModelInfer")
assert json.loads(done.stdout)["outputs"][0]["name"] == "score", done.stderr
wrong = grpcurl("-d", '{"query": "a"}', SERVER, "tei.v1.Rerank/Rerank")
assert "texts: empty; give at least one" in wrong.stderr, wrong.stderr
