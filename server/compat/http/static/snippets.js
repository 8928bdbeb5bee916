// The form's request as commands and code to copy. Texts are quoted for the language that they stand in.

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const json = (value) => JSON.stringify(value);
const pretty = (value) => JSON.stringify(value, null, 2);
const listed = (texts, indent) => `[\n${texts.map((text) => `${indent}    ${json(text)},`).join("\n")}\n${indent}]`;

/** What an HTTP client would send: path and body. */
export function httpCall({ task, model, query, lines, multi }) {
  if (task === "rank") return ["v1/rerank", { model, query, documents: lines }];
  if (task === "classify") return ["zero-shot", { inputs: query, parameters: { candidate_labels: lines, multi_label: multi }, model }];
  return ["v1/embeddings", { model, input: [query, ...lines], encoding_format: "float" }];
}

export function curl(asked, base) {
  const [path, body] = httpCall(asked);
  return `curl ${new URL(path, base)} \\\n  -H 'content-type: application/json' \\\n  -d ${shell(pretty(body))}`;
}

export function grpcurl(asked, { host, port, secure }) {
  const { task, model, query, lines, multi } = asked;
  const [method, body] = {
    rank: ["ScoringService/Rerank", { model, query, documents: lines }],
    classify: ["ScoringService/Classify", { model, texts: [query], candidate_labels: lines, multi_label: multi }],
    compare: ["EmbeddingService/Embed", { model, texts: [query, ...lines] }],
  }[task];
  return `grpcurl ${secure ? "" : "-plaintext "}-d ${shell(pretty(body))} \\\n  ${host}:${port} pairwire.v1.${method}`;
}

export function python(asked, { host, port, secure }) {
  const { task, model, query, lines, multi } = asked;
  const options = secure ? ", options=ClientOptions(tls=TlsFiles())" : "";
  const names = secure ? "Client, ClientOptions, TlsFiles" : "Client";
  const call = {
    rank: `    for found in client.rerank(${json(query)}, lines, model=${json(model)}):
        print(f"{found.score:.4f}  {found.document}")`,
    classify: `    (found,) = client.classify([${json(query)}], lines, model=${json(model)}${multi ? ", multi_label=True" : ""})
    for label, score in zip(found.labels, found.scores):
        print(f"{score:.4f}  {label}")`,
    compare: `    query, *documents = client.embed([${json(query)}, *lines], model=${json(model)}, normalize=True).embeddings
    for text, vector in zip(lines, documents):
        print(f"{query @ vector:.4f}  {text}")`,
  }[task];
  return `from pairwire.client import ${names}\n\nlines = ${listed(lines, "")}\nwith Client("${host}:${port}"${options}) as client:\n${call}`;
}
