/** The Node clients, as clients.py has the Python ones. Usage: clients.mjs HTTP_URL TOKEN */
import { readFileSync } from "node:fs";

const [url, token] = process.argv.slice(2);
const query = "Toy Story (1995)\nHeat (1995)";
const documents = ["Sabrina (1995)", "GoldenEye (1995)", "Casino (1995)"];
const expected = "2:0.3 1:0.2 0:0.1";

const clients = [
  {
    ...{ name: "cohere-ai, CohereClientV2", package: "cohere-ai", speaks: "Cohere v2" },
    async rank(key) {
      const { CohereClientV2 } = await import("cohere-ai");
      const client = new CohereClientV2({ environment: url, token: key });
      const { results } = await client.rerank({ model: "rerank-v3.5", query, documents });
      return results.map((r) => `${r.index}:${r.relevanceScore}`);
    },
  },
  {
    ...{ name: "Vercel ai, rerank with @ai-sdk/cohere", package: "ai", speaks: "Cohere v2" },
    async rank(key) {
      const { rerank } = await import("ai");
      const { createCohere } = await import("@ai-sdk/cohere");
      const model = createCohere({ baseURL: `${url}/v2`, apiKey: key }).reranking("rerank-v3.5");
      const { ranking } = await rerank({ model, documents, query, maxRetries: 0 });
      return ranking.map((r) => `${r.originalIndex}:${r.score}`);
    },
  },
];

async function findFault(client) {
  try {
    const answer = (await client.rank(token)).join(" ");
    if (answer !== expected) return `it answered ${answer}, not ${expected}`;
  } catch (e) {
    return String(e).slice(0, 300);
  }
  return client.rank(`${token}x`).then(
    (answer) => `with a wrong token it answered ${answer.join(" ")}`,
    () => "",
  );
}

for (const client of clients) {
  let version = "";
  try {
    ({ version } = JSON.parse(readFileSync(new URL(`node_modules/${client.package}/package.json`, import.meta.url))));
  } catch {
    // not installed
  }
  const fault = version === "" ? `${client.package} is not installed` : await findFault(client);
  const state = version === "" ? "skipped" : fault === "" ? "passed" : "failed";
  const { name, package: from, speaks } = client;
  process.stdout.write(`${JSON.stringify({ name, package: from, speaks, version, state, fault })}\n`);
}
