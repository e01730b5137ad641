/** Settings of `gr2 serve`: transports, workers, batching, admission. They have no effect on what a run computes. */
import { z } from "zod";
import { count, countOrZero } from "./numbers.ts";
import { http, limits, security } from "./serve-http.ts";

export const serve = z
  .strictObject({
    grpc: z
      .strictObject({
        host: z
          .string()
          .default("127.0.0.1")
          .describe("Address that the gRPC service listens on; loopback by default."),
        port: z.int().min(0).max(65535).default(50061).describe("Port of the gRPC service; 0 = any free port."),
      })
      .prefault({}),
    http,
    security,
    limits,
    system: z
      .string()
      .default("auto")
      .describe(
        "Which system answers. auto: the one that the evaluation recommends, in its own mode; " +
          "the other mode is answered by the best on validation among sft and rl (think), " +
          "or evidence, prior, direct, sft_direct and rl_direct (direct). " +
          "Or name one of these: sft and rl answer mode direct with the same weights; " +
          "the others answer mode direct only; evidence and prior load no language model.",
      ),
    processes: count
      .default(1)
      .describe(
        "Number of processes that answer on the same ports, each with workers of its own (serve.workers); new connections go to each in turn.",
      ),
    workers: count.default(1).describe("Number of workers per process, each with its own copy of the model."),
    addresses: z
      .array(z.string())
      .default([])
      .describe("Addresses of running workers (host:port or unix:/path) to use instead of starting new ones."),
    maxBatch: count.default(32).describe("Maximum requests per worker call."),
    batchWaitMs: countOrZero
      .default(2)
      .describe("How long a request waits for others to share its worker call although a worker is free."),
    maxQueue: count.default(512).describe("Maximum requests waiting for a worker; further ones are refused."),
    maxLagMs: count
      .default(100)
      .describe(
        "Event-loop lag above which requests are refused until the process has caught up: " +
          "they arrive faster than it can read them.",
      ),
    standingMs: count
      .default(500)
      .describe("The service is overloaded if every batch has been full, with requests left waiting, for this long."),
    standingWait: z
      .number()
      .min(0)
      .max(1)
      .default(0.1)
      .describe(
        "While overloaded, refuse a request that would wait more than this share of its deadline " +
          "and does not fit the next batches; 1 = only if it would miss its deadline.",
      ),
    overload: z
      .enum(["refuse", "own-order"])
      .default("refuse")
      .describe(
        "Response to a request that cannot be answered in time. " +
          "refuse: RESOURCE_EXHAUSTED or 429 with a retry time; own-order: the caller's own order, flagged.",
      ),
    onFallback: z
      .enum(["own-order", "error"])
      .default("own-order")
      .describe(
        "Response when the model gives no answer (deadline, lost worker, invalid answer), " +
          "unless the request sets it. " +
          "own-order: the caller's own order, flagged; error: UNAVAILABLE or 503 with the reason.",
      ),
    lameDuckMs: countOrZero
      .default(5_000)
      .describe(
        "After SIGTERM, how long the service reports that it is not ready but still answers, " +
          "while load balancers take it out of rotation.",
      ),
    drainMs: count.default(30_000).describe("After that, time for accepted requests to finish."),
    candidateOrder: z
      .enum(["ranked", "arbitrary"])
      .default("ranked")
      .describe(
        "What the order of candidates without scores means, unless the request sets it. " +
          "ranked: it is from the caller's ranker, best first, and is used; arbitrary: it is ignored.",
      ),
    healthMs: count.default(2_000).describe("Interval between health checks of a worker."),
    stallMs: count
      .default(20_000)
      .describe("A worker that is still busy this long after its call was cancelled is restarted."),
    newItems: count.default(10_000).describe("Size of the cache of semantic IDs for items given only by their text."),
    newItemsQueue: count
      .default(10_000)
      .describe("Maximum unknown texts waiting to be encoded; requests beyond it are refused."),
    newItemCost: z
      .number()
      .min(0)
      .default(1)
      .describe("How many requests an unknown text counts as against its client's rate; 0 = none."),
    encoder: z
      .enum(["auto", "own", "shared"])
      .default("auto")
      .describe(
        "What encodes unknown texts. own: a separate worker of lower priority, which does not delay other requests; " +
          "shared: the workers that answer; auto: own, unless workers run elsewhere (serve.addresses).",
      ),
    items: z
      .string()
      .default("")
      .describe("File that stores registered items; empty = NAME.items.jsonl next to the run's folder."),
    maxItems: count.default(100_000).describe("Maximum registered items."),
    otlp: z
      .string()
      .default("")
      .describe(
        "Base URL of an OpenTelemetry collector that receives a span per request (OTLP over HTTP), " +
          "or env: taken from OTEL_EXPORTER_OTLP_ENDPOINT and related variables; empty = none.",
      ),
    cache: countOrZero.default(4_096).describe("Size of the cache of direct answers, keyed by exact input; 0 = off."),
    prefixCacheMb: countOrZero
      .default(0)
      .describe(
        "MiB of prefix cache per model and worker: a prefix shared with an earlier prompt " +
          "(instructions, a returning user's history) is not computed again; 0 = off. " +
          "Worthwhile for large models and returning users; slows small models in mode think (docs/serving.md).",
      ),
  })
  .prefault({});
