/**
 * Hostile and malformed gRPC calls, endlessly and from a seed, each with its acceptable statuses: noise and broken
 * protobuf, messages that break a rule, text that forges tokens, abandoned calls and calls out of time. Owns the calls
 * and the check of their answers; the caller decides what is sent where.
 */
import { Client, credentials, Metadata, status } from "@grpc/grpc-js";
import { RerankBatchRequest, RerankRequest, RerankResponse, RerankStreamRequest } from "../src/client/index.ts";
import { Rng } from "../src/core/rng.ts";
import type { ServedModel } from "../src/serve/request/types.ts";
import { forgeries } from "./hostile-http.ts";

export interface HostileCall {
  readonly kind: string;
  /** The full name, or only that of a method of the service. */
  readonly method: string;
  readonly bytes: Buffer;
  readonly statuses: readonly status[];
  /** Number of candidates if OK is acceptable and the answer is one order; else -1. */
  readonly numCandidates: number;
  /** The caller leaves after this time. */
  readonly leaveMs?: number;
  readonly deadlineMs?: number;
}

const methods = ["Rerank", "RerankStream", "RerankBatch", "GetModel"] as const;
const { OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, CANCELLED, DEADLINE_EXCEEDED } = status;
const longMs = 20_000;
/** Without lone surrogates, which protobuf's encoder would replace. */
const wellFormed = forgeries.filter((text) => Buffer.from(text).toString() === text);

/** The n-th hostile call of a seed. */
export function hostileCall(seed: number, n: number, limits: ServedModel["limits"]): HostileCall {
  const rng = Rng.of(seed, "hostile-grpc", n);
  const pick = <T>(items: readonly T[]): T => items[rng.int(items.length)] as T;
  const text = (): string => pick([...wellFormed, "Toy Story (1995)", "ok"]);
  const list = (length: number) => Array.from({ length }, (_, i) => ({ id: `c${i}`, text: text() }));
  const numCandidates = 1 + rng.int(12);
  const request = (changes: Partial<RerankRequest> = {}): RerankRequest =>
    RerankRequest.fromPartial({
      history: [{ text: text() }, { itemId: "50" }, { text: text() }].slice(0, rng.int(4)),
      candidates: list(numCandidates),
      ...changes,
    });
  const encodeRequest = (message: RerankRequest): Buffer => Buffer.from(RerankRequest.encode(message).finish());
  const call = (kind: string, bytes: Buffer, statuses: readonly status[], more: Partial<HostileCall> = {}) => ({
    ...{ kind, method: "Rerank", bytes, statuses, numCandidates: -1 },
    ...more,
  });
  const invalid = (kind: string, changes: Partial<RerankRequest>): HostileCall =>
    call(kind, encodeRequest(request(changes)), [INVALID_ARGUMENT]);
  const tooLarge = (kind: string, changes: Partial<RerankRequest>): HostileCall =>
    call(kind, encodeRequest(request(changes)), [RESOURCE_EXHAUSTED]);
  const noise = (): Buffer => Buffer.from(Array.from({ length: 1 + rng.int(300) }, () => rng.int(256)));
  const candidate = (changes: object): Partial<RerankRequest> => ({
    candidates: RerankRequest.fromPartial({ candidates: [{ id: "a", text: "A", ...changes }] }).candidates,
  });

  const kinds: readonly (() => HostileCall)[] = [
    () => call("forged texts", encodeRequest(request()), [OK], { numCandidates }),
    // A length-delimited candidate that never ends, and a field of a type that does not exist.
    () => call("never ends", Buffer.from([0x12, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x61]), [INVALID_ARGUMENT]),
    () => call("no such wire type", Buffer.from([0x17]), [INVALID_ARGUMENT]),
    () => call("noise", noise(), [INVALID_ARGUMENT, OK], { method: pick(methods) }),
    () => {
      const whole = encodeRequest(request());
      return call("cut off", whole.subarray(0, rng.int(whole.length)), [INVALID_ARGUMENT, OK]);
    },
    () => {
      const whole = encodeRequest(request());
      for (let i = 0; i <= rng.int(4); i++) whole[rng.int(whole.length)] = rng.int(256);
      return call("bits flipped", whole, [OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED]);
    },
    () => {
      const whole = encodeRequest(request(candidate({ text: "\u0001\u0001\u0001\u0001" })));
      whole.set(
        pick([[0xff], [0xc3, 0x28], [0xed, 0xa0, 0x80], [0xc0, 0xaf]]),
        whole.indexOf("\u0001\u0001\u0001\u0001"),
      );
      return call("not UTF-8", whole, [INVALID_ARGUMENT]);
    },
    () =>
      call("empty", Buffer.alloc(0), [INVALID_ARGUMENT], { method: pick(["Rerank", "RerankStream", "RerankBatch"]) }),
    () => invalid("no candidates", { candidates: [] }),
    () => invalid("empty id", candidate({ id: "" })),
    () => invalid("blank candidate", candidate({ text: pick(["", " ", "\n\t"]) })),
    () => invalid("unknown item without a text", candidate({ itemId: `nothing-${n}`, text: "" })),
    () => {
      const same = pick(["a", "__proto__", "constructor"]);
      return invalid("ids twice", {
        candidates: list(2).map((c) => ({ ...c, id: same, itemId: "", score: undefined })),
      });
    },
    () => invalid("no finite score", candidate({ score: pick([Number.NaN, Number.POSITIVE_INFINITY, -Infinity]) })),
    () =>
      invalid("some scores", {
        candidates: list(2).map((c, i) => ({ ...c, itemId: "", score: i === 0 ? 1 : undefined })),
      }),
    () =>
      tooLarge("too many candidates", {
        candidates: request({}).candidates.concat(
          ...Array.from({ length: limits.maxCandidates }, (_, i) => ({ id: `m${i}`, itemId: "", text: "A" })),
        ),
      }),
    () => tooLarge("long text", candidate({ text: "é".repeat(limits.maxTextBytes / 2 + 1) })),
    () => tooLarge("long id", candidate({ id: "i".repeat(257) })),
    () =>
      tooLarge("long history", {
        history: Array.from({ length: limits.maxHistory + 1 }, () => ({ itemId: "50", text: "" })),
      }),
    // The call's own deadline is shorter, and counts.
    () => call("a deadline of weeks", encodeRequest(request({ deadlineMs: 2 ** 31 })), [OK], { numCandidates }),
    () =>
      call("a mode from tomorrow", encodeRequest(request({ mode: 1000 as RerankRequest["mode"] })), [OK], {
        numCandidates,
      }),
    () => {
      const batch = { requests: Array.from({ length: limits.maxBatch + 1 }, () => request()) };
      const bytes = Buffer.from(RerankBatchRequest.encode(batch).finish());
      return call("too many requests in one", bytes, [RESOURCE_EXHAUSTED], { method: "RerankBatch" });
    },
    () => {
      const bytes = Buffer.from(
        RerankBatchRequest.encode({ requests: [request({ candidates: [] }), request()] }).finish(),
      );
      return call("a bad request in a batch", bytes, [OK], { method: "RerankBatch" });
    },
    () => {
      const bytes = Buffer.from(RerankStreamRequest.encode({ request: request({ candidates: [] }) }).finish());
      return call("a bad stream", bytes, [INVALID_ARGUMENT], { method: "RerankStream" });
    },
    () => {
      const bytes = Buffer.from(RerankStreamRequest.encode({ request: request({ mode: 1 }) }).finish());
      return call("left", bytes, [CANCELLED, OK, RESOURCE_EXHAUSTED], { method: "RerankStream", leaveMs: rng.int(30) });
    },
    () =>
      call("out of time", encodeRequest(request()), [DEADLINE_EXCEEDED, OK, RESOURCE_EXHAUSTED], {
        deadlineMs: rng.int(4),
      }),
    () =>
      call("no such method", encodeRequest(request()), [UNIMPLEMENTED], {
        method: pick(["Rerank2", "rerank", "/gr2.v1.Worker/Shutdown", "/gr2.v1.RerankService/", "/a/b", "/%00/x"]),
      }),
  ];
  // Messages beyond the limit are slow to send: one in a hundred.
  if (n % 100 === 99)
    return call("too large", Buffer.alloc(limits.maxRequestBytes + 1 + rng.int(1000), 0x0a), [RESOURCE_EXHAUSTED]);
  return (kinds[n % kinds.length] as () => HostileCall)();
}

/** A channel that sends bytes unchanged; `send` says what is wrong with the response, or "" if nothing is. */
export function hostileChannel(address: string, token?: string) {
  const client = new Client(address, credentials.createInsecure(), { "grpc.max_send_message_length": -1 });
  const metadata = new Metadata();
  if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
  const same = (bytes: Buffer): Buffer => bytes;
  const send = async (hostile: HostileCall): Promise<string> => {
    const { kind, method, bytes } = hostile;
    const path = method.startsWith("/") ? method : `/gr2.v1.RerankService/${method}`;
    const answers: Buffer[] = [];
    const code = await new Promise<status>((resolve) => {
      const deadline = Date.now() + (hostile.deadlineMs ?? longMs);
      const stream = client.makeServerStreamRequest(path, same, same, bytes, metadata, { deadline });
      stream.on("data", (answer: Buffer) => answers.push(answer));
      stream.on("error", () => {}); // its status follows
      stream.on("status", (s) => resolve(s.code));
      if (hostile.leaveMs !== undefined) setTimeout(() => stream.cancel(), hostile.leaveMs);
    });
    if (!hostile.statuses.includes(code))
      return `${kind} at ${path}: ${status[code]}, not ${hostile.statuses.map((s) => status[s]).join("/")}`;
    if (code !== OK || hostile.numCandidates < 0) return "";
    const { ranking } = RerankResponse.decode(answers[0] as Buffer);
    const positions = new Set(ranking.map((r) => r.place));
    const whole = ranking.length === hostile.numCandidates && ranking.every((_, i) => positions.has(i));
    return whole ? "" : `${kind} at ${path}: no permutation`;
  };
  return { send, close: () => client.close() };
}
