/**
 * Attacks on a running service below the level of requests, each with what must come of it: requests smuggled within
 * others, lengths that disagree, headers without end, senders that never finish. Owns the bytes and the check of what
 * comes back. (What a worker's port refuses: tests/python/test_access.py.)
 */
import { connect } from "node:net";

export interface Attack {
  readonly kind: string;
  readonly bytes: string;
  /** Sent one byte at a time, so many milliseconds apart, until the service ends the connection. */
  readonly trickleMs?: number;
  /** What may come back, the whole of it. */
  readonly answer: RegExp;
}

const head = (...lines: string[]): string =>
  `POST /gr2/v1/rerank HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${lines.map((l) => `${l}\r\n`).join("")}\r\n`;
const smuggled = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
/** One refusal, and not a second answer after it. */
const refusedOnce = /^HTTP\/1\.1 4\d\d (?:(?!HTTP\/1\.1).)*$/s;
/** Cut off, with or without a word. */
const cutOff = /^$|^HTTP\/1\.1 4\d\d (?:(?!HTTP\/1\.1).)*$/s;

export const attacks: readonly Attack[] = [
  {
    kind: "smuggling: both lengths",
    bytes: `${head("Content-Length: 4", "Transfer-Encoding: chunked")}0\r\n\r\n${smuggled}`,
    answer: refusedOnce,
  },
  {
    kind: "smuggling: two lengths",
    bytes: `${head("Content-Length: 2", "Content-Length: 50")}{}${smuggled}`,
    answer: refusedOnce,
  },
  {
    kind: "smuggling: a coding in disguise",
    bytes: `${head("Transfer-Encoding: xchunked")}0\r\n\r\n${smuggled}`,
    answer: cutOff,
  },
  {
    kind: "smuggling: a coding before its colon",
    bytes: `${head("Transfer-Encoding : chunked", "Content-Length: 4")}0\r\n\r\n${smuggled}`,
    answer: refusedOnce,
  },
  {
    kind: "smuggling: a folded header",
    bytes: `${head("X-A: b\r\n Transfer-Encoding: chunked", "Content-Length: 0")}${smuggled.slice(0, 3)}`,
    answer: cutOff,
  },
  {
    kind: "smuggling: a bare line feed",
    bytes: `${head("X-A: b\nTransfer-Encoding: chunked", "Content-Length: 4")}0\r\n\r\n${smuggled}`,
    answer: refusedOnce,
  },
  { kind: "headers without end", bytes: `${head(`X-A: ${"a".repeat(100_000)}`)}`, answer: cutOff },
  { kind: "slowloris: headers", bytes: head("X-A: b").slice(0, -2), trickleMs: 200, answer: cutOff },
  { kind: "slowloris: body", bytes: `${head("Content-Length: 100000")}{`, trickleMs: 200, answer: cutOff },
];

/** @param withinMs a connection that is open for longer is a fault @returns what is wrong with the outcome, or "" */
export function attack({ kind, bytes, trickleMs, answer }: Attack, url: URL, withinMs: number): Promise<string> {
  return new Promise((resolve) => {
    let came = "";
    const socket = connect(Number(url.port || 80), url.hostname);
    const end = (fault: string): void => {
      clearTimeout(timer);
      clearInterval(trickle);
      socket.destroy();
      resolve(fault === "" ? "" : `${kind}: ${fault}`);
    };
    const timer = setTimeout(() => end(`still open after ${withinMs} ms`), withinMs);
    let sent = 0;
    const trickle =
      trickleMs === undefined ? undefined : setInterval(() => socket.write(bytes[sent++] ?? "a"), trickleMs);
    socket.on("connect", () => trickleMs ?? socket.write(bytes));
    socket.on("data", (chunk) => {
      came += chunk.toString("latin1");
    });
    socket.on("error", () => undefined); // a reset is an end like any other
    socket.on("close", () => end(answer.test(came) ? "" : `it answered ${JSON.stringify(came.slice(0, 200))}`));
  });
}
