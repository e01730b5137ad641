/**
 * The service's TypeScript client, exported as "gr2/client": promises, deadlines and streams over the generated code.
 * Everything in proto/gr2/v1/rerank.proto is exported too, with its types.
 */
import { type ChannelCredentials, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import {
  FallbackReason,
  type GetModelResponse,
  RegisterItemsRequest,
  type RegisterItemsResponse,
  RerankBatchRequest,
  type RerankBatchResponse,
  RerankRequest,
  type RerankResponse,
  RerankServiceClient,
  type RerankStreamResponse,
} from "./generated/gr2/v1/rerank.ts";

export * from "./generated/gr2/v1/rerank.ts";

type Primitive = string | number | boolean | undefined;
/** Every field is optional; its default is the proto's. */
export type Partially<T> = T extends Primitive
  ? T
  : T extends readonly (infer U)[]
    ? readonly Partially<U>[]
    : { readonly [K in keyof T]?: Partially<T[K]> };

export interface RerankClientOptions {
  /** Sent as `authorization: Bearer TOKEN`. */
  readonly token?: string;
  /** Default: no TLS. `credentials.createSsl(...)` of @grpc/grpc-js for TLS and mTLS. */
  readonly credentials?: ChannelCredentials;
  /**
   * Time limit of a call, milliseconds; default 10 000. The service answers within it, if need be with your own order.
   */
  readonly timeoutMs?: number;
  /**
   * `rerank` returns your own order, with fallback NO_SERVICE, if the service refuses for now, cannot be reached or
   * does not answer in time. Mistakes of the caller (a malformed request, a missing token) are still errors. Default
   * false.
   */
  readonly ownOrder?: boolean;
  /**
   * Connects for itself; otherwise the clients of an address share one connection, and with it one process of a service
   * that has several (serve.processes). Default false.
   */
  readonly ownConnection?: boolean;
}

export interface CallOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** A client of one service. Calls reject with grpc-js's ServiceError: `code` is the status, `details` a sentence. */
export class RerankClient {
  private readonly stub: RerankServiceClient;
  private readonly options: RerankClientOptions;

  /** @param address "host:port" */
  constructor(address: string, options: RerankClientOptions = {}) {
    this.stub = new RerankServiceClient(address, options.credentials ?? credentials.createInsecure(), {
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 2_000,
      ...(options.ownConnection ? { "grpc.use_local_subchannel_pool": 1 } : {}),
    });
    this.options = options;
  }

  async rerank(request: Partially<RerankRequest>, call: CallOptions = {}): Promise<RerankResponse> {
    const message = RerankRequest.fromPartial(request as RerankRequest);
    try {
      return await unary(call, (done) => this.stub.rerank(message, this.metadata(), this.deadline(call), done));
    } catch (e) {
      const failed = notTheCallers.has((e as ServiceError).code) && !call.signal?.aborted;
      if (this.options.ownOrder && failed) return ownOrder(message);
      throw e;
    }
  }

  rerankBatch(request: Partially<RerankBatchRequest>, call: CallOptions = {}): Promise<RerankBatchResponse> {
    const message = RerankBatchRequest.fromPartial(request as RerankBatchRequest);
    return unary(call, (done) => this.stub.rerankBatch(message, this.metadata(), this.deadline(call), done));
  }

  /** Registers items that the model does not know under an id for later requests. */
  registerItems(request: Partially<RegisterItemsRequest>, call: CallOptions = {}): Promise<RegisterItemsResponse> {
    const message = RegisterItemsRequest.fromPartial(request as RegisterItemsRequest);
    return unary(call, (done) => this.stub.registerItems(message, this.metadata(), this.deadline(call), done));
  }

  getModel(call: CallOptions = {}): Promise<GetModelResponse> {
    return unary(call, (done) => this.stub.getModel({}, this.metadata(), this.deadline(call), done));
  }

  /** Pieces of the reasoning, then the answer. Leaving the loop early cancels the call. */
  async *rerankStream(
    request: Partially<RerankRequest>,
    call: CallOptions = {},
  ): AsyncGenerator<RerankStreamResponse, void, void> {
    const message = RerankRequest.fromPartial(request as RerankRequest);
    const stream = this.stub.rerankStream({ request: message }, this.metadata(), this.deadline(call));
    const cancel = () => stream.cancel();
    stream.on("error", () => {}); // reported through the iterator
    call.signal?.addEventListener("abort", cancel);
    try {
      for await (const event of stream) yield event as RerankStreamResponse;
    } finally {
      call.signal?.removeEventListener("abort", cancel);
      cancel();
    }
  }

  close(): void {
    this.stub.close();
  }

  private metadata(): Metadata {
    const metadata = new Metadata();
    if (this.options.token) metadata.set("authorization", `Bearer ${this.options.token}`);
    return metadata;
  }

  private deadline(call: CallOptions): { deadline: number } {
    return { deadline: Date.now() + (call.timeoutMs ?? this.options.timeoutMs ?? 10_000) };
  }
}

/**
 * Statuses for which the request is not to blame. CANCELLED means a broken connection here: aborts are checked
 * separately.
 */
const notTheCallers: ReadonlySet<status> = new Set([
  ...[status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.RESOURCE_EXHAUSTED],
  ...[status.INTERNAL, status.UNKNOWN, status.CANCELLED],
]);

/** The unchanged order, scored as the service scores it. */
function ownOrder({ candidates, topN }: RerankRequest): RerankResponse {
  const scoreAt = (place: number): number => candidates[place]?.score ?? 0;
  const places = candidates.map((_, place) => place).sort((a, b) => scoreAt(b) - scoreAt(a) || a - b);
  const ranking = places.map((place, rank) => ({
    ...{ id: candidates[place]?.id as string, place },
    score: 1 - rank / candidates.length,
  }));
  return {
    ...{ ranking: topN > 0 ? ranking.slice(0, topN) : ranking, thought: "", modelVersion: "" },
    ...{ fallback: FallbackReason.FALLBACK_REASON_NO_SERVICE, timings: undefined, tokens: undefined },
  };
}

function unary<T>(
  call: CallOptions,
  start: (done: (error: ServiceError | null, response: T) => void) => { cancel(): void },
): Promise<T> {
  return new Promise((resolve, reject) => {
    const pending = start((error, response) => {
      call.signal?.removeEventListener("abort", cancel);
      if (error) reject(error);
      else resolve(response);
    });
    const cancel = () => pending.cancel();
    call.signal?.addEventListener("abort", cancel);
    if (call.signal?.aborted) cancel();
  });
}
