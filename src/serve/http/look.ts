/** GET responses: the service's state, also in the formats that other servers' clients and platforms expect. */
import type { HttpSettings, LimitSettings } from "../../config/schema/serve-http.ts";
import { readOwnPackage } from "../../core/own-package.ts";
import { chooseFormat, type Metrics, type MetricsSnapshot, metricsTypes } from "../observe/metrics.ts";
import type { Reranker, ServedModel } from "../request/types.ts";
import { openApi } from "./openapi.ts";
import { page, pagePolicy } from "./page.ts";
import { Problem } from "./problem.ts";
import { json, type Reply } from "./reply.ts";
import type { GetPath } from "./routes.ts";

/** Seconds since 1970. */
const started = Math.floor(Date.now() / 1000);

export interface LookOptions {
  readonly reranker: Reranker;
  readonly http: HttpSettings;
  readonly limits: LimitSettings;
  readonly metrics: Metrics;
  /** Metrics of the service's other processes. */
  readonly otherMetrics?: () => Promise<readonly MetricsSnapshot[]>;
  /** Answers requests, but reports that it is not ready. */
  readonly leaving: () => boolean;
}

/** @param accept the header, as received */
export function createLook(options: LookOptions): (path: GetPath, accept: string | undefined) => Promise<Reply> {
  const { reranker, http, limits, metrics, leaving, otherMetrics = async () => [] } = options;
  const { version } = readOwnPackage();
  let document: object | undefined;
  const requireModel = (): ServedModel => {
    const model = reranker.model();
    if (!model) throw new Problem("unavailable", "No model is loaded.");
    return model;
  };
  return async (path, accept) => {
    switch (path) {
      case "/":
        if (!http.page) throw new Problem("not_found", "The try-it page is switched off.");
        return { status: 200, type: "text/html; charset=utf-8", text: page, headers: pagePolicy };
      case "/healthz":
        return json(200, { status: "ok" });
      case "/readyz":
      case "/health":
      case "/ping": {
        const ready = reranker.ready() && !leaving();
        return json(ready ? 200 : 503, { ready });
      }
      case "/version":
        return json(200, { version });
      case "/openapi.json":
        document ??= openApi(limits);
        return json(200, document);
      case "/metrics": {
        const format = chooseFormat(accept);
        return {
          status: 200,
          type: metricsTypes[format],
          text: metrics.render(reranker, format, await otherMetrics()),
        };
      }
      case "/gr2/v1/model":
        return json(200, requireModel());
      case "/info":
        return json(200, describeForTei(requireModel(), limits, version));
      case "/v1/models":
      case "/models":
        return json(200, listForOpenAi(requireModel(), started));
    }
  };
}

const listForOpenAi = (model: ServedModel, created: number): object => ({
  object: "list",
  data: [{ id: model.name, object: "model", created, owned_by: "gr2", root: model.version, capabilities: ["rerank"] }],
});

/** TEI measures texts in tokens; one is about four bytes. */
const bytesPerToken = 4;

const describeForTei = (model: ServedModel, limits: LimitSettings, version: string): object => ({
  model_id: model.name,
  model_sha: model.hashes.weights,
  model_dtype: "float32",
  model_type: { reranker: { id2label: { "0": "relevance" }, label2id: { relevance: 0 } } },
  max_concurrent_requests: limits.maxInFlight,
  max_input_length: Math.floor(Math.min(limits.maxTextBytes, model.limits.maxTextBytes) / bytesPerToken),
  max_batch_tokens: Math.floor(model.limits.maxRequestBytes / bytesPerToken),
  max_batch_requests: model.limits.maxBatch,
  max_client_batch_size: Math.min(limits.maxCandidates, model.limits.maxCandidates),
  auto_truncate: false,
  tokenization_workers: 1,
  version,
  sha: null,
  docker_label: null,
});
