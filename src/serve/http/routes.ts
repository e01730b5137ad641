/** Every path of the service, what it requires, and the dialect of a re-rank request. */
import { cohereV1, cohereV2 } from "./dialects/cohere.ts";
import { type Choose, type Dialect, isObject } from "./dialects/dialect.ts";
import { gr2 } from "./dialects/gr2.ts";
import { jina } from "./dialects/jina.ts";
import { tei } from "./dialects/tei.ts";
import { looksLikeVllm, vllm } from "./dialects/vllm.ts";

/** Re-ranking: POST, with every dialect a path may speak; errors before the body is read use the first one. */
export interface RerankRoute {
  readonly path: string;
  readonly dialects: readonly Dialect[];
  readonly choose: Choose;
}

/** Cohere's own clients name themselves; others that speak its first version name its models or use its fields. */
const looksLikeCohere: (...args: Parameters<Choose>) => boolean = (body, headers) => {
  if (/^cohere/i.test(String(headers["x-fern-sdk-name"] ?? ""))) return true;
  if (!isObject(body)) return false;
  if ("rank_fields" in body || "max_chunks_per_doc" in body) return true;
  return typeof body.model === "string" && body.model.startsWith("rerank-");
};

export const rerankRoutes: readonly RerankRoute[] = [
  { path: "/gr2/v1/rerank", dialects: [gr2], choose: () => gr2 },
  { path: "/v2/rerank", dialects: [cohereV2, vllm], choose: (body) => (looksLikeVllm(body) ? vllm : cohereV2) },
  {
    path: "/v1/rerank",
    dialects: [jina, cohereV1, vllm],
    choose: (body, headers) => {
      if (looksLikeVllm(body)) return vllm;
      return looksLikeCohere(body, headers) ? cohereV1 : jina;
    },
  },
  {
    path: "/rerank",
    dialects: [tei, vllm],
    choose: (body) => (isObject(body) && "documents" in body && !("texts" in body) ? vllm : tei),
  },
];

/** GET paths. `public` ones need no authentication. */
export const getRoutes = {
  "/": { public: true, summary: "Try-it page" },
  "/healthz": { public: true, summary: "200 while the process is alive" },
  "/readyz": { public: true, summary: "200 while a model answers, else 503" },
  "/openapi.json": { public: true, summary: "This document" },
  "/metrics": { public: false, summary: "Prometheus metrics" },
  "/gr2/v1/model": { public: false, summary: "The model: hashes, modes, limits" },
} as const;

export type GetPath = keyof typeof getRoutes;
