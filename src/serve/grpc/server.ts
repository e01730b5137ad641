/**
 * The gRPC server: RerankService, health, reflection; sockets, TLS, deadlines, draining. The engine answers
 * requests; security/ decides who may call.
 */
import { join } from "node:path";
import {
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type sendUnaryData,
  status,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { ReflectionService } from "@grpc/reflection";
import { HealthImplementation, protoPath as healthProto } from "grpc-health-check";
import * as pb from "../../client/generated/gr2/v1/rerank.ts";
import { EnvironmentError } from "../../core/errors.ts";
import { repositoryRoot } from "../../core/paths.ts";
import { beginRecord, finishRecord, type GrpcAccess, readRequestId, stackTrace } from "../observe/access.ts";
import type { Metrics } from "../observe/metrics.ts";
import { formatTraceparent, passOn, type RequestTrace, type Tracing } from "../observe/trace.ts";
import { type Caller, type CallOptions, Refusal, type RerankAnswer, type Reranker } from "../request/types.ts";
import type { Security } from "../security/security.ts";
import { readAuthorization } from "../security/tokens.ts";
import { serverCertificates } from "./certificates.ts";
import { lenient, type Malformed, toItems, toModel, toRequest, toResponse, toStatus, wellFormed } from "./translate.ts";

export interface GrpcServerOptions {
  readonly reranker: Reranker;
  readonly security: Security;
  readonly host: string;
  /** 0 = any free one. */
  readonly port: number;
  readonly maxRequestBytes: number;
  readonly defaultDeadlineMs: number;
  readonly metrics: Pick<Metrics, "observe">;
  /** Logs bugs only. */
  readonly log: (message: string) => void;
  readonly access: (record: GrpcAccess) => void;
  /** Default: passes on what callers send. */
  readonly tracing?: Tracing;
}

export interface GrpcServer {
  readonly port: number;
  /** Makes health report NOT_SERVING; calls are still answered. */
  notServing(): void;
  /** Applies the certificates that security.reload() has read. */
  reloadCertificates(): void;
  /** Accepts no new calls, waits for running ones, then closes; closes anyway after the time limit. */
  drain(withinMs: number): Promise<void>;
}

const serviceName = "gr2.v1.RerankService";
/** How often health is updated from the engine. */
const healthMs = 200;
/** Abort reason of a call's signal, at the end of each call too; made once: an error with its stack is costly. */
const ended = new Error("the call has ended");
/** Part of a call's own deadline reserved for returning the answer. */
const wayBackMs = 5;

const service = {
  rerank: { ...pb.RerankServiceService.rerank, requestDeserialize: lenient((r) => pb.RerankRequest.decode(r)) },
  rerankStream: {
    ...pb.RerankServiceService.rerankStream,
    requestDeserialize: lenient((r) => pb.RerankStreamRequest.decode(r)),
  },
  rerankBatch: {
    ...pb.RerankServiceService.rerankBatch,
    requestDeserialize: lenient((r) => pb.RerankBatchRequest.decode(r)),
  },
  registerItems: {
    ...pb.RerankServiceService.registerItems,
    requestDeserialize: lenient((r) => pb.RegisterItemsRequest.decode(r)),
  },
  getModel: { ...pb.RerankServiceService.getModel, requestDeserialize: lenient((r) => pb.GetModelRequest.decode(r)) },
};

type AnyCall = ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>;

/** @throws EnvironmentError if the port is taken or the address is not this machine's */
export async function startGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const { reranker, security } = options;
  const server = new Server({
    "grpc.max_receive_message_length": options.maxRequestBytes,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.max_concurrent_streams": 1_024,
    "grpc.so_reuseport": 0,
  });
  const health = new HealthImplementation({ "": "NOT_SERVING", [serviceName]: "NOT_SERVING" });
  server.addService(service, handlers(options));
  health.addToServer(server);
  const protos = join(repositoryRoot, "proto");
  new ReflectionService(
    loadSync([join(protos, "gr2/v1/rerank.proto"), healthProto], { includeDirs: [protos], keepCase: true }),
  ).addToServer(server);

  const tls = security.tls();
  const certificates = tls && serverCertificates(tls);
  const port = await new Promise<number>((resolve, reject) => {
    const host = options.host.includes(":") && !options.host.startsWith("[") ? `[${options.host}]` : options.host;
    server.bindAsync(
      `${host}:${options.port}`,
      certificates?.credentials ?? ServerCredentials.createInsecure(),
      (cause, bound) => {
        if (!cause) return resolve(bound);
        reject(
          new EnvironmentError(`cannot listen on ${options.host}:${options.port}: ${cause.message}`, {
            cause,
            advice: "Choose another serve.grpc.port, or 0 for any free one.",
          }),
        );
      },
    );
  });
  let ending = false;
  const follow = () => {
    const now = !ending && reranker.ready() ? "SERVING" : "NOT_SERVING";
    for (const name of ["", serviceName]) health.setStatus(name, now);
  };
  follow();
  const timer = setInterval(follow, healthMs);
  timer.unref();
  return {
    port,
    notServing() {
      ending = true;
      follow();
    },
    reloadCertificates() {
      const renewed = security.tls();
      if (renewed) certificates?.set(renewed);
    },
    async drain(withinMs) {
      ending = true;
      follow();
      clearInterval(timer);
      const force = setTimeout(() => server.forceShutdown(), withinMs);
      await new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      clearTimeout(force);
    },
  };
}

const peerAddress = (call: AnyCall): string => call.getPeer().replace(/:\d+$/, "");

/** Resolves when the stream accepts more data or has no reader left. */
const drained = (call: ServerWritableStream<unknown, unknown>): Promise<void> =>
  new Promise((resolve) => {
    const done = () => {
      call.off("drain", done);
      call.off("cancelled", done);
      resolve();
    };
    call.on("drain", done);
    call.on("cancelled", done);
    if (call.cancelled) done();
  });

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A call in progress. */
interface Exchange {
  readonly call: AnyCall;
  readonly began: number;
  readonly record: Mutable<GrpcAccess>;
  readonly trace: RequestTrace | undefined;
  /** Milliseconds from messages to requests. */
  parseMs: number;
  /** The caller; known once admitted. */
  caller?: Caller;
  answer?: RerankAnswer;
}

function handlers(options: GrpcServerOptions) {
  const { reranker, security, tracing = passOn } = options;

  const begin = (route: string, call: AnyCall): Exchange => {
    const trace = tracing.begin(`${serviceName}/${route}`, call.metadata.get("traceparent")[0]);
    const record: Mutable<GrpcAccess> = {
      ...beginRecord(peerAddress(call), trace),
      ...{ transport: "grpc", requestId: readRequestId(call.metadata.get("x-request-id")[0]), route },
      ...{ status: "", numRequests: 0 },
    };
    if (trace) {
      const head = new Metadata();
      head.set("traceparent", formatTraceparent(trace.context));
      head.set("x-request-id", record.requestId);
      call.sendMetadata(head);
    }
    return { call, began: performance.now(), record, trace, parseMs: 0 };
  };

  const admit = (exchange: Exchange, requests: number): void => {
    const { call, record } = exchange;
    reranker.shed();
    const subject = call.getAuthContext().sslPeerCertificate?.subject.CN;
    const name = Array.isArray(subject) ? subject[0] : subject;
    const principal = security.authenticate(
      readAuthorization((key) => call.metadata.get(key)[0]),
      name,
    );
    record.client = principal.name;
    record.numRequests = requests;
    security.admit(principal, requests);
    exchange.caller = security.caller(principal, record.peer);
  };

  /** Aborted when the caller is gone or its deadline has passed. */
  const gone = (call: AnyCall): AbortSignal => {
    const controller = new AbortController();
    call.on("cancelled", () => controller.abort(ended));
    return controller.signal;
  };

  /** The request's client, and the signal for when nobody waits for it any more. */
  const callOptions = ({ call, caller, trace }: Exchange): CallOptions => ({
    signal: gone(call),
    ...(caller ? { caller } : {}),
    ...(trace ? { traceparent: formatTraceparent(trace.context) } : {}),
  });

  const asked = (message: pb.RerankRequest, exchange: Exchange) => {
    const { call, record } = exchange;
    const began = performance.now();
    record.numHistory += message.history.length;
    record.numCandidates += message.candidates.length;
    record.mode = message.mode === pb.Mode.MODE_THINK ? "think" : "direct";
    const left = Number(call.getDeadline()) - Date.now() - wayBackMs;
    const request = toRequest(message, left, options.defaultDeadlineMs);
    exchange.parseMs += performance.now() - began;
    return request;
  };

  /** Counts and logs a finished call. */
  const end = ({ record, began, answer, parseMs, trace }: Exchange, code: status): void => {
    const ms = performance.now() - began;
    record.status = status[code];
    finishRecord(record, { ms, parseMs, answer }, trace);
    options.metrics.observe({
      ...{ transport: "grpc", route: record.route, status: record.status, seconds: ms / 1000 },
      ...(record.mode ? { mode: record.mode } : {}),
      ...(answer ? { answer } : {}),
      ...(record.problem ? { problem: record.problem } : {}),
    });
    options.access(record);
  };

  const problem = (error: unknown): { code: status; details: string; metadata: Metadata } => {
    const metadata = new Metadata();
    if (!(error instanceof Refusal)) {
      options.log(`a bug in the service: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
      return { code: status.INTERNAL, details: "a bug in the service", metadata };
    }
    if (error.retryAfterMs !== undefined) metadata.set("retry-after-ms", String(Math.ceil(error.retryAfterMs)));
    if (error.fallback !== undefined) metadata.set("fallback", error.fallback);
    return { code: toStatus(error), details: error.message, metadata };
  };

  /** The error that ends the call. */
  const refuse = (exchange: Exchange, error: unknown) => {
    const refused = problem(error);
    exchange.record.problem = error instanceof Refusal ? error.code : "internal";
    if (!(error instanceof Refusal)) exchange.record.trace = stackTrace(error);
    end(exchange, refused.code);
    return refused;
  };

  /** Runs one call: admission, answer, status, metrics. */
  const unary =
    <Req extends object, Res>(route: string, answer: (request: Req, exchange: Exchange) => Promise<Res>) =>
    (call: ServerUnaryCall<Req | Malformed, Res>, done: sendUnaryData<Res>): void => {
      const exchange = begin(route, call);
      const run = async () => answer(wellFormed(call.request), exchange);
      run().then(
        (response) => {
          end(exchange, status.OK);
          done(null, response);
        },
        (error: unknown) => done(refuse(exchange, error)),
      );
    };

  return {
    rerank: unary("Rerank", async (message: pb.RerankRequest, exchange) => {
      admit(exchange, 1);
      exchange.answer = await reranker.rerank(asked(message, exchange), callOptions(exchange));
      return toResponse(exchange.answer);
    }),
    rerankBatch: unary("RerankBatch", async ({ requests }: pb.RerankBatchRequest, exchange) => {
      admit(exchange, Math.max(1, requests.length));
      const most = reranker.model()?.limits.maxBatch;
      if (requests.length === 0) throw new Refusal("invalid", "requests is empty");
      if (most !== undefined && requests.length > most)
        throw new Refusal("too_large", `requests has ${requests.length} entries; at most ${most} are allowed`);
      const shared = callOptions(exchange);
      const one = async (message: pb.RerankRequest): Promise<pb.RerankBatchResult> => {
        try {
          const answer = await reranker.rerank(asked(message, exchange), shared);
          return { outcome: { $case: "answer", value: toResponse(answer) } };
        } catch (error) {
          const { code, details } = problem(error);
          const retryAfterMs = error instanceof Refusal ? Math.ceil(error.retryAfterMs ?? 0) : 0;
          return { outcome: { $case: "error", value: { code, message: details, retryAfterMs } } };
        }
      };
      return { results: await Promise.all(requests.map(one)) };
    }),
    registerItems: unary("RegisterItems", async (message: pb.RegisterItemsRequest, exchange) => {
      admit(exchange, 1);
      exchange.record.numCandidates = message.items.length;
      return reranker.register(toItems(message), callOptions(exchange));
    }),
    getModel: unary("GetModel", async (_: pb.GetModelRequest, exchange) => {
      admit(exchange, 1);
      const model = reranker.model();
      if (!model) throw new Refusal("unavailable", "no model is loaded");
      return toModel(model, reranker.itemsVersion());
    }),
    rerankStream: (call: ServerWritableStream<pb.RerankStreamRequest | Malformed, pb.RerankStreamResponse>): void => {
      const exchange = begin("RerankStream", call);
      const stream = async (): Promise<void> => {
        const { request } = wellFormed(call.request);
        if (!request) throw new Refusal("invalid", "request is missing");
        admit(exchange, 1);
        for await (const event of reranker.stream(asked(request, exchange), callOptions(exchange))) {
          if (event.kind === "answer") exchange.answer = event.answer;
          const message: pb.RerankStreamResponse =
            event.kind === "reasoning"
              ? { event: { $case: "thought", value: event.text } }
              : { event: { $case: "answer", value: toResponse(event.answer) } };
          if (!call.write(message)) await drained(call);
        }
      };
      stream().then(
        () => {
          end(exchange, status.OK);
          call.end();
        },
        (error: unknown) => call.emit("error", refuse(exchange, error)),
      );
    },
  };
}
