"""cohere: rerank of both versions of its API."""

import json
import os
from pathlib import Path

import cohere

URL = os.environ["PAIRWIRE_HTTP"]
expected = json.loads(Path(os.environ["PAIRWIRE_EXPECTED"]).read_text())
query, documents, scores = expected["query"], expected["documents"], expected["logits"]
scores = [row[0] if isinstance(row, list) else row for row in scores]
order = sorted(range(len(scores)), key=lambda at: (-scores[at], at))

second = cohere.ClientV2(api_key="whatever", base_url=URL)
found = second.rerank(model="demo", query=query, documents=documents)
assert [each.index for each in found.results] == order
assert all(
    abs(each.relevance_score - scores[each.index]) < 1e-6 * max(1, abs(scores[each.index])) for each in found.results
)
assert len(second.rerank(model="demo", query=query, documents=documents, top_n=2).results) == 2

first = cohere.Client(api_key="whatever", base_url=URL)
found = first.rerank(query=query, documents=[{"text": text} for text in documents], return_documents=True)
assert [each.index for each in found.results] == order
assert found.results[0].document.text == documents[order[0]]

for model, given, told in (("nope", documents, "no model 'nope' is loaded"), ("demo", [], "documents: empty")):
    try:
        second.rerank(model=model, query=query, documents=given)
    except (cohere.NotFoundError, cohere.BadRequestError) as error:
        assert told in error.body["message"], error.body
    else:
        raise AssertionError("it was served")
