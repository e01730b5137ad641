/** Every path of the service, what it requires, and the dialect of a re-rank request. */
import { cohereV1, cohereV2 } from "./dialects/cohere.ts";
import { type Choose, type Dialect, isObject } from "./dialects/dialect.ts";
import { gr2 } from "./dialects/gr2.ts";
import { infinity, looksLikeInfinity } from "./dialects/infinity.ts";
import { jina } from "./dialects/jina.ts";
import { score } from "./dialects/score.ts";
import { tei } from "./dialects/tei.ts";
import { looksLikeVllm, vllm } from "./dialects/vllm.ts";
import { looksLikeVoyage, voyage } from "./dialects/voyage.ts";

/** Re-ranking: POST, with every dialect a path may speak; errors before the body is read use the first one. */
export interface RerankRoute {
  readonly path: string;
  readonly dialects: readonly Dialect[];
  readonly choose: Choose;
}

/** Cohere's clients identify themselves; other clients of its v1 name its models or use its fields. */
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
    dialects: [jina, cohereV1, voyage, vllm, infinity],
    choose: (body, headers) => {
      if (looksLikeVllm(body)) return vllm;
      if (looksLikeVoyage(body)) return voyage;
      if (looksLikeCohere(body, headers)) return cohereV1;
      return looksLikeInfinity(body) ? infinity : jina;
    },
  },
  {
    path: "/rerank",
    dialects: [tei, vllm, infinity],
    choose: (body) => {
      if (!isObject(body) || "texts" in body || !("documents" in body)) return tei;
      return looksLikeInfinity(body) && !looksLikeVllm(body) ? infinity : vllm;
    },
  },
  { path: "/infinity/rerank", dialects: [infinity], choose: () => infinity },
  { path: "/score", dialects: [score], choose: () => score },
  { path: "/v1/score", dialects: [score], choose: () => score },
];

/** GET paths. `public` ones need no authentication. */
export const getRoutes = {
  "/": { public: true, summary: "Try-it page" },
  "/healthz": { public: true, summary: "200 while the process is alive" },
  "/readyz": { public: true, summary: "200 while a model answers, else 503" },
  "/health": { public: true, summary: "Same as /readyz: TEI, vLLM, Infinity" },
  "/ping": { public: true, summary: "Same as /readyz: SageMaker" },
  "/openapi.json": { public: true, summary: "This document" },
  "/version": { public: true, summary: "Version of the software: vLLM" },
  "/metrics": { public: false, summary: "Prometheus metrics" },
  "/gr2/v1/model": { public: false, summary: "The model's hashes, modes and limits" },
  "/info": { public: false, summary: "The model as TEI describes it" },
  "/v1/models": { public: false, summary: "The model as OpenAI lists it: vLLM" },
  "/models": { public: false, summary: "Same as /v1/models: Infinity" },
} as const;

export type GetPath = keyof typeof getRoutes;

/** The path of a URL, without query, repeated slashes or a trailing slash, which clients leave when joining URLs. */
export function readPath(url: string): string {
  const path = (url.split("?", 1)[0] ?? "").replace(/\/{2,}/g, "/");
  return path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path;
}
