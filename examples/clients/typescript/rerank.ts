// Ranks documents from TypeScript: node build/rerank.js HOST:PORT (default localhost:50051).
//
// npm install && npm run generate && npm run build && npm start

import * as grpc from "@grpc/grpc-js";
import * as protoLoader from "@grpc/proto-loader";
import type { RerankRequest } from "./generated/pairwire/v1/RerankRequest.js";
import type { RerankResponse__Output } from "./generated/pairwire/v1/RerankResponse.js";
import type { ProtoGrpcType } from "./generated/scoring.js";

const PROTOS = process.env.PAIRWIRE_PROTOS ?? "../../../protos";
const address = process.argv[2] ?? "localhost:50051";

const definition = protoLoader.loadSync("pairwire/v1/scoring.proto", {
  includeDirs: [PROTOS],
  longs: Number,
  enums: String,
  defaults: true,
  oneofs: true,
});
const { pairwire } = grpc.loadPackageDefinition(definition) as unknown as ProtoGrpcType;
const client = new pairwire.v1.ScoringService(address, grpc.credentials.createInsecure(), {
  // Waits as the server says (grpc-retry-pushback-ms) and sends again: the queue was full, or a server restarts.
  "grpc.service_config": JSON.stringify({
    methodConfig: [
      {
        name: [{ service: "pairwire.v1.ScoringService" }],
        retryPolicy: {
          maxAttempts: 5,
          initialBackoff: "0.1s",
          maxBackoff: "2s",
          backoffMultiplier: 2,
          retryableStatusCodes: ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        },
      },
    ],
  }),
});

function rerank(request: RerankRequest, seconds = 10): Promise<RerankResponse__Output> {
  const deadline = new Date(Date.now() + 1000 * seconds); // what cannot be done by then is refused at once
  return new Promise((resolve, reject) => {
    client.Rerank(request, { deadline }, (error, answer) => (answer ? resolve(answer) : reject(error)));
  });
}

const documents = ["A recipe for bread.", "The pull of the moon on the sea.", "Wind makes waves."];
try {
  const { results, model } = await rerank({ query: "What causes ocean tides?", documents, topK: 2 });
  for (const { index, score } of results) console.log(`${score.toFixed(6)}  ${documents[index]}`);
  console.log(`by ${model}`);
} catch (error) {
  const { code, details } = error as grpc.ServiceError;
  console.error(`${grpc.status[code]}: ${details}`); // a sentence that says which field is wrong, and what to do
  process.exitCode = 1;
} finally {
  client.close();
}
