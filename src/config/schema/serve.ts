/** Settings of `gr2 serve`: transports, workers, batching, admission. None of them changes what a run computes. */
import { z } from "zod";
import { count, countOrZero } from "./numbers.ts";
import { http, limits, security } from "./serve-http.ts";

export const serve = z
  .strictObject({
    grpc: z
      .strictObject({
        host: z.string().default("127.0.0.1").describe("Address the gRPC service listens on; loopback by default."),
        port: z.int().min(0).max(65535).default(50061).describe("Port of the gRPC service; 0 = any free one."),
      })
      .prefault({}),
    http,
    security,
    limits,
    system: z
      .string()
      .default("auto")
      .describe(
        "auto: the system that the evaluation recommends answers its mode, and the other mode is answered by the best on validation among sft and rl (think), or evidence, prior, direct, sft_direct and rl_direct (direct). Or one of these: sft and rl answer mode direct by the same weights, the others answer mode direct alone; evidence and prior load no language model.",
      ),
    workers: count.default(1).describe("Workers behind the service, each with its own copy of the model."),
    addresses: z
      .array(z.string())
      .default([])
      .describe("Workers that run elsewhere (host:port or unix:/path), instead of starting our own."),
    maxBatch: count.default(32).describe("Requests computed in one call of a worker."),
    batchWaitMs: countOrZero
      .default(2)
      .describe("A request waits at most this long for others to share its call while a worker is free."),
    maxQueue: count.default(512).describe("Requests waiting for a worker at most; more are refused."),
    maxLagMs: count
      .default(100)
      .describe(
        "More requests come than one process can read if it stays this late with its work: they are refused until it has caught up.",
      ),
    standingMs: count
      .default(500)
      .describe(
        "More requests come than can be answered if every batch is full and leaves others waiting for so long.",
      ),
    standingWait: z
      .number()
      .min(0)
      .max(1)
      .default(0.1)
      .describe(
        "While that is so, a request is refused that would wait more than this share of its deadline and does not fit the next batches; 1 = only if it would miss its deadline.",
      ),
    overload: z
      .enum(["refuse", "own-order"])
      .default("refuse")
      .describe(
        "What a request gets that cannot be answered in time. refuse: RESOURCE_EXHAUSTED or 429 with a time to try again; own-order: the caller's own order, flagged.",
      ),
    onFallback: z
      .enum(["own-order", "error"])
      .default("own-order")
      .describe(
        "What a request gets where the model gives no answer (deadline, lost worker, unreadable answer), unless it says so itself. own-order: the caller's own order, flagged; error: UNAVAILABLE or 503 with the reason.",
      ),
    candidateOrder: z
      .enum(["ranked", "arbitrary"])
      .default("ranked")
      .describe(
        "What the order of candidates without scores means, unless the request says so itself. ranked: the caller's ranker made it, best first, and it counts; arbitrary: it does not count.",
      ),
    drainMs: count.default(30_000).describe("After SIGTERM: accepted requests are finished for so long at most."),
    healthMs: count.default(2_000).describe("A worker is asked this often how it is."),
    stallMs: count
      .default(20_000)
      .describe("A worker that is not free again so long after its call was cancelled is started again."),
    newItems: count.default(10_000).describe("Semantic IDs remembered of items that are known by their text alone."),
    newItemsQueue: count.default(10_000).describe("Unknown texts that may wait to be encoded; more are refused."),
    newItemCost: z
      .number()
      .min(0)
      .default(1)
      .describe("Requests that an unknown text counts as against its client's rate; 0 = none."),
    encoder: z
      .enum(["auto", "own", "shared"])
      .default("auto")
      .describe(
        "What encodes unknown texts. own: a worker of its own, of lower priority, so that requests without unknown texts are not held up; shared: the workers that answer; auto: own, unless workers run elsewhere (serve.addresses).",
      ),
    items: z
      .string()
      .default("")
      .describe("File that keeps registered items; empty = NAME.items.jsonl next to the run's folder."),
    maxItems: count.default(100_000).describe("Items that may be registered."),
    cache: countOrZero.default(4_096).describe("Direct answers remembered by their exact input; 0 = none."),
    prefixCacheMb: countOrZero
      .default(0)
      .describe(
        "MiB that each model in each worker takes to remember computed prompts: what a later prompt begins with alike (instructions, a returning user's history) is not computed again; 0 = none. It pays for large models and returning users, and costs small ones in mode think (docs/serving.md).",
      ),
  })
  .prefault({});
