/**
 * One HTTP request, from its headers to the last byte of its answer: caller, path, body, ranking, reply, log. Owns the
 * order of these checks: cheap ones first, and nothing is read from a caller who is not admitted.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { TLSSocket } from "node:tls";
import type { LimitSettings } from "../../config/schema/serve-http.ts";
import { beginRecord, finishRecord, type HttpAccess, readRequestId, stackTrace } from "../observe/access.ts";
import { formatTraceparent, passOn, type Tracing } from "../observe/trace.ts";
import { type Caller, type CallOptions, Refusal, type RerankAnswer, type ServedModel } from "../request/types.ts";
import { isLoopback, type Security } from "../security/security.ts";
import { readAuthorization } from "../security/tokens.ts";
import { ClientGone, checkHeaders, discardBody, parseJson, peekObject, readBody, type Take } from "./body.ts";
import type { Dialect, ReadContext } from "./dialects/dialect.ts";
import { gr2, renderAnswer } from "./dialects/gr2.ts";
import { itemsPath, readItems, renderRegistered } from "./items.ts";
import { createLook, type LookOptions } from "./look.ts";
import { Problem, toProblem } from "./problem.ts";
import { answerHeaders, json, send, sendEvents } from "./reply.ts";
import { type GetPath, getRoutes, type RerankRoute, readPath, rerankRoutes } from "./routes.ts";

export interface HandlerOptions extends LookOptions {
  readonly security: Security;
  readonly log: (record: HttpAccess) => void;
  /** Default: passes on what callers send. */
  readonly tracing?: Tracing;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** A request in progress. */
interface Exchange {
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  readonly record: Mutable<HttpAccess>;
  /** The client waits for "100 Continue" before it sends the body. */
  readonly expectsContinue: boolean;
  /** The dialect of a refusal: by path until the body is read, then by the body. */
  dialect: Dialect;
  /** The first bytes of a body that was refused before it was parsed. */
  first: Buffer;
  /** The caller; known once admitted. */
  caller?: Caller;
  /** Sent to the worker. */
  readonly traceparent: string | undefined;
  /** Milliseconds from the body's bytes to a request. */
  parseMs: number;
}

type Asking = CallOptions & { readonly signal: AbortSignal };

const discardMs = 2_000;
/** All bodies being read or answered may together have the size of this many bodies of maximum size. */
const wholeBodiesInFlight = 16;
const knownMethods = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

export type Handle = (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean) => Promise<void>;

export function createHandler(options: HandlerOptions): Handle {
  const { reranker, security, http, limits, metrics, log, tracing = passOn } = options;
  const allowedHosts = new Set(["localhost", ...http.hosts.map((h) => h.toLowerCase())]);
  const maxValues = 16 * (limits.maxCandidates + limits.maxHistory) + 256;
  const maxBytesInFlight = wholeBodiesInFlight * limits.maxRequestBytes;
  const jsonLimits = { maxDepth: limits.maxJsonDepth, maxValues };
  let inFlight = 0;
  let bytesInFlight = 0;
  const look = createLook(options);

  /** Otherwise a web page whose domain resolves to this machine could call an open loopback service (DNS rebinding). */
  function checkHost(req: IncomingMessage): void {
    if (!security.open || !isLoopback(http.host)) return;
    const host = (req.headers.host ?? "localhost").toLowerCase().replace(/:\d+$/, "");
    if (!isLoopback(host) && !allowedHosts.has(host))
      throw new Problem("forbidden", "Unknown host name; serve.http.hosts lists additional names.");
  }

  /** Reads a body if there is room for it, and keeps the room reserved until it is answered. */
  async function withBody<T>(exchange: Exchange, use: (body: unknown, asking: Asking) => Promise<T>): Promise<T> {
    const { req, res, record } = exchange;
    reranker.shed();
    if (inFlight >= limits.maxInFlight) throw new Refusal("overloaded", "Too many requests at once.");
    inFlight++;
    let bytesTaken = 0;
    const take: Take = (bytes, chunk) => {
      if (exchange.first.length === 0 && chunk) exchange.first = chunk;
      if (bytesInFlight + bytes > maxBytesInFlight) throw new Refusal("overloaded", "Too many large requests at once.");
      bytesInFlight += bytes;
      bytesTaken += bytes;
    };
    const gone = new AbortController();
    const onClose = (): void => gone.abort(new ClientGone("the client disconnected"));
    res.once("close", onClose);
    try {
      checkHeaders(req, limits);
      if (exchange.expectsContinue) res.writeContinue();
      const bytes = await readBody(req, limits.maxRequestBytes, take);
      record.bytesIn = bytes.length;
      exchange.first = bytes;
      const { caller, traceparent } = exchange;
      const parsing = performance.now();
      const body = parseJson(bytes, jsonLimits);
      exchange.parseMs = performance.now() - parsing;
      return await use(body, {
        signal: gone.signal,
        ...(caller ? { caller } : {}),
        ...(traceparent ? { traceparent } : {}),
      });
    } catch (e) {
      if (gone.signal.aborted) throw new ClientGone("the client disconnected", { cause: e });
      throw e;
    } finally {
      inFlight--;
      bytesInFlight -= bytesTaken;
      res.off("close", onClose);
    }
  }

  async function rerank(
    route: RerankRoute,
    exchange: Exchange,
    body: unknown,
    asking: Asking,
  ): Promise<RerankAnswer | undefined> {
    const { req, res, record } = exchange;
    const { requestId } = record;
    const { signal } = asking;
    exchange.dialect = route.choose(body, req.headers);
    record.dialect = exchange.dialect.name;
    const model = reranker.model();
    if (!model) throw new Refusal("unavailable", "No model is loaded.");
    const context = { model: withLimits(model, limits), json: jsonLimits, ...wishes(req) };
    const reading = performance.now();
    const { request, numCut, render, stream } = exchange.dialect.read(body, context);
    exchange.parseMs += performance.now() - reading;
    record.numHistory = request.history.length;
    record.numCandidates = request.candidates.length;
    record.mode = request.mode;
    if (stream) {
      const sent = await sendEvents(
        res,
        reranker.stream(request, asking),
        {
          answer: (answer) => renderAnswer(answer, requestId),
          error: (error) => gr2.refuse(toProblem(error), requestId).body,
        },
        { headers: { "x-request-id": requestId }, writeTimeoutMs: http.writeTimeoutMs, signal },
      );
      record.status = signal.aborted ? 499 : 200;
      record.bytesOut = sent.bytes;
      if (sent.error !== undefined) note(record, sent.error);
      return sent.answer;
    }
    const answer = await reranker.rerank(request, asking);
    if (signal.aborted) throw new ClientGone("the client closed the connection");
    const reply = json(200, render(answer, requestId), answerHeaders(answer, numCut));
    record.status = 200;
    record.bytesOut = send(res, reply, http.writeTimeoutMs);
    return answer;
  }

  async function register({ res, record }: Exchange, body: unknown, asking: Asking): Promise<void> {
    const items = readItems(body);
    record.numCandidates = items.length;
    const reply = json(200, renderRegistered(await reranker.register(items, asking), record.requestId));
    record.status = 200;
    record.bytesOut = send(res, reply, http.writeTimeoutMs);
  }

  return async (req, res, expectsContinue) => {
    const start = performance.now();
    const path = readPath(req.url ?? "");
    const rerankRoute = rerankRoutes.find((r) => r.path === path);
    const isItems = path === itemsPath;
    const getRoute = Object.hasOwn(getRoutes, path) ? (path as GetPath) : undefined;
    const trace = rerankRoute || isItems ? tracing.begin(`POST ${path}`, req.headers.traceparent) : undefined;
    const traceparent = trace && formatTraceparent(trace.context);
    const record: Mutable<HttpAccess> = {
      ...beginRecord(req.socket.remoteAddress, trace),
      transport: "http",
      requestId: readRequestId(req.headers["x-request-id"]),
      method: knownMethods.has(req.method ?? "") ? (req.method as string) : "other",
      route: rerankRoute?.path ?? getRoute ?? (isItems ? itemsPath : "unknown"),
      dialect: "",
      status: 0,
      bytesIn: 0,
      bytesOut: 0,
    };
    const exchange: Exchange = {
      req,
      res,
      record,
      expectsContinue,
      dialect: rerankRoute?.choose(undefined, req.headers) ?? gr2,
      first: Buffer.alloc(0),
      traceparent,
      parseMs: 0,
    };
    res.setHeader("x-request-id", record.requestId);
    if (traceparent) res.setHeader("traceparent", traceparent);
    if (options.leaving()) res.setHeader("connection", "close");
    let answer: RerankAnswer | undefined;
    try {
      checkHost(req);
      if (!rerankRoute && !getRoute && !isItems)
        throw new Problem("not_found", "There is nothing here; see /openapi.json.");
      const isPublic = getRoute && (getRoutes[getRoute].public || (getRoute === "/metrics" && security.openMetrics));
      const authorization = readAuthorization((name) => req.headers[name]);
      const principal = isPublic ? undefined : security.authenticate(authorization, certificateName(req));
      record.client = principal?.name ?? "";
      const allowed = rerankRoute || isItems ? "POST" : "GET, HEAD";
      if (!allowed.split(", ").includes(req.method ?? ""))
        throw new Problem("method_not_allowed", `Only ${allowed}.`, { headers: { allow: allowed } });
      if (principal && !getRoute) {
        security.admit(principal);
        exchange.caller = security.caller(principal, req.socket.remoteAddress);
      }
      if (isItems) await withBody(exchange, (body, asking) => register(exchange, body, asking));
      else if (rerankRoute) {
        answer = await withBody(exchange, (body, asking) => rerank(rerankRoute, exchange, body, asking));
      } else {
        const reply = await look(getRoute as GetPath, req.headers.accept);
        record.status = reply.status;
        record.bytesOut = send(res, reply, http.writeTimeoutMs);
      }
    } catch (e) {
      note(record, e);
      if (e instanceof ClientGone || res.headersSent) {
        record.status = 499;
        res.destroy();
      } else {
        const problem = toProblem(e);
        if (!req.complete) {
          const rest = expectsContinue ? undefined : await discardBody(req, 4 * limits.maxRequestBytes, discardMs);
          if (exchange.first.length === 0 && rest) exchange.first = rest;
          if (!req.complete) res.setHeader("connection", "close");
        }
        if (rerankRoute && record.dialect === "")
          exchange.dialect = rerankRoute.choose(peekObject(exchange.first), req.headers);
        const refusal = exchange.dialect.refuse(problem, record.requestId);
        record.status = refusal.status;
        record.bytesOut = send(res, json(refusal.status, refusal.body, problem.headers), http.writeTimeoutMs);
      }
    }
    const ms = performance.now() - start;
    finishRecord(record, { ms, parseMs: exchange.parseMs, answer }, trace);
    metrics.observe({
      transport: "http",
      route: record.route,
      status: String(record.status),
      seconds: ms / 1000,
      ...(record.mode ? { mode: record.mode } : {}),
      ...(answer ? { answer } : {}),
      ...(rerankRoute && record.problem ? { problem: record.problem } : {}),
    });
    log(record);
  };
}

/** The error for the log: a code, and for a bug its place in the code without its message. */
function note(record: Mutable<HttpAccess>, error: unknown): void {
  if (error instanceof ClientGone) {
    record.problem = "client_gone";
    return;
  }
  const problem = toProblem(error);
  record.problem = problem.code;
  if (problem.code === "internal") record.trace = stackTrace(error);
}

/** Mode, deadline and fallback behaviour from headers, for dialects whose bodies have no fields for them. */
function wishes(req: IncomingMessage): Pick<ReadContext, "mode" | "deadlineMs" | "onFallback" | "candidateOrder"> {
  const mode = req.headers["x-gr2-mode"] ?? "direct";
  if (mode !== "think" && mode !== "direct") throw new Refusal("invalid", "x-gr2-mode must be think or direct.");
  const deadline = req.headers["x-gr2-deadline-ms"] ?? "0";
  if (typeof deadline !== "string" || !/^\d{1,9}$/.test(deadline))
    throw new Refusal("invalid", "x-gr2-deadline-ms must be whole milliseconds.");
  const onFallback = req.headers["x-gr2-on-fallback"];
  if (onFallback !== undefined && onFallback !== "own-order" && onFallback !== "error")
    throw new Refusal("invalid", "x-gr2-on-fallback must be own-order or error.");
  const candidateOrder = req.headers["x-gr2-candidate-order"];
  if (candidateOrder !== undefined && candidateOrder !== "ranked" && candidateOrder !== "arbitrary")
    throw new Refusal("invalid", "x-gr2-candidate-order must be ranked or arbitrary.");
  return { mode, deadlineMs: Number(deadline), onFallback, candidateOrder };
}

/** The common name of a verified client certificate. */
function certificateName(req: IncomingMessage): string | undefined {
  const socket = req.socket as Partial<TLSSocket>;
  if (!socket.authorized) return undefined;
  const name = socket.getPeerCertificate?.().subject?.CN;
  return name === undefined ? undefined : String(name).slice(0, 64);
}

const withLimits = (model: ServedModel, limits: LimitSettings): ServedModel => ({
  ...model,
  limits: {
    ...model.limits,
    maxCandidates: Math.min(model.limits.maxCandidates, limits.maxCandidates),
    maxThinkCandidates: Math.min(model.limits.maxThinkCandidates, limits.maxCandidates),
    maxHistory: Math.min(model.limits.maxHistory, limits.maxHistory),
    maxTextBytes: Math.min(model.limits.maxTextBytes, limits.maxTextBytes),
    maxDeadlineMs: Math.min(model.limits.maxDeadlineMs, limits.maxDeadlineMs),
  },
});
