// openai, cohere-ai and @huggingface/inference of npm.
import assert from "node:assert";
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { CohereClient, CohereClientV2 } from "cohere-ai";
import { InferenceClient } from "@huggingface/inference";

const url = process.env.PAIRWIRE_HTTP;
const expected = JSON.parse(readFileSync(process.env.PAIRWIRE_EXPECTED));
const { query, documents } = expected;
const same = (rows, others) =>
  assert.deepStrictEqual(rows.map((row) => Array.from(row, Math.fround)), others.map((row) => row.map(Math.fround)));

const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: "whatever", maxRetries: 0 });
const embedded = await openai.embeddings.create({ model: "mini", input: documents });
same(embedded.data.map((each) => each.embedding), expected.vectors);
await assert.rejects(openai.embeddings.create({ model: "nope", input: "a" }), (error) => {
  assert(error instanceof OpenAI.NotFoundError);
  assert.match(error.message, /no model 'nope' is loaded/);
  return true;
});

const second = new CohereClientV2({ token: "whatever", environment: url });
const ranked = await second.rerank({ model: "demo", query, documents, topN: 2 });
assert.strictEqual(ranked.results.length, 2);
const first = new CohereClient({ token: "whatever", environment: url });
const whole = await first.rerank({ query, documents, returnDocuments: true });
assert.strictEqual(whole.results[0].document.text, documents[whole.results[0].index]);

const huggingFace = new InferenceClient("", { endpointUrl: url });
same(await huggingFace.featureExtraction({ inputs: documents }), expected.unit_vectors);
const similarities = await huggingFace.sentenceSimilarity({
  inputs: { source_sentence: "one", sentences: ["two", "three"] },
});
assert.strictEqual(similarities.length, 2);
await assert.rejects(huggingFace.featureExtraction({ inputs: "one", prompt_name: "nope" }), /nope/);
