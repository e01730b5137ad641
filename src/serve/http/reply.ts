/** Writing answers: JSON and text at once, server-sent events at the client's speed. */
import { once } from "node:events";
import type { ServerResponse } from "node:http";
import type { RerankAnswer, RerankEvent } from "../request/types.ts";

const always = { "cache-control": "no-store", "x-content-type-options": "nosniff" };

export interface Reply {
  readonly status: number;
  readonly type: string;
  readonly text: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export const json = (status: number, body: unknown, headers?: Readonly<Record<string, string>>): Reply => ({
  status,
  type: "application/json",
  text: `${JSON.stringify(body)}\n`,
  ...(headers ? { headers } : {}),
});

/** Sends a whole answer. A client that does not read it in time is cut off. Returns the number of bytes. */
export function send(res: ServerResponse, { status, type, text, headers }: Reply, writeTimeoutMs: number): number {
  const body = Buffer.from(text);
  res.setTimeout(writeTimeoutMs, () => res.destroy());
  res.writeHead(status, { ...always, "content-type": type, "content-length": body.length, ...headers });
  res.end(body);
  return body.length;
}

/** Headers of every answer to a re-rank request, whatever its dialect. */
export function answerHeaders(answer: RerankAnswer, numCut: number): Record<string, string> {
  const { queue, encode, model, total } = answer.timings;
  return {
    "x-gr2-model-version": answer.modelVersion,
    "server-timing": Object.entries({ queue, encode, model, total })
      .map(([stage, ms]) => `${stage};dur=${ms.toFixed(1)}`)
      .join(", "),
    ...(answer.fallback === undefined ? {} : { "x-gr2-fallback": answer.fallback }),
    ...(numCut === 0 ? {} : { "x-gr2-truncated": String(numCut) }),
  };
}

/** One server-sent event; JSON has no line breaks, so one data line is enough. */
const eventText = (name: string, data: unknown): string => `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;

export interface EventRendering {
  readonly answer: (answer: RerankAnswer) => unknown;
  /** An error after the first event, when the status is already sent. */
  readonly error: (error: unknown) => unknown;
}

/**
 * Sends events as they come. The status waits for the first event: a refusal can still have its own status.
 * @throws what the first event threw. Later errors become an "error" event and are returned.
 */
export async function sendEvents(
  res: ServerResponse,
  events: AsyncIterable<RerankEvent>,
  render: EventRendering,
  { headers, writeTimeoutMs, signal }: { headers: Record<string, string>; writeTimeoutMs: number; signal: AbortSignal },
): Promise<{ readonly bytes: number; readonly answer: RerankAnswer | undefined; readonly error: unknown }> {
  const iterator = events[Symbol.asyncIterator]();
  let next = await iterator.next();
  let bytes = 0;
  let answer: RerankAnswer | undefined;
  const write = async (text: string): Promise<void> => {
    bytes += Buffer.byteLength(text);
    if (res.write(text)) return;
    await once(res, "drain", { signal: AbortSignal.any([signal, AbortSignal.timeout(writeTimeoutMs)]) });
  };
  res.writeHead(200, { ...always, "content-type": "text/event-stream", "x-accel-buffering": "no", ...headers });
  try {
    for (; !next.done; next = await iterator.next()) {
      if (next.value.kind === "answer") answer = next.value.answer;
      const { value } = next;
      await write(
        value.kind === "reasoning"
          ? eventText("thought", { text: value.text })
          : eventText("answer", render.answer(value.answer)),
      );
    }
    res.end();
    return { bytes, answer, error: undefined };
  } catch (error) {
    if (signal.aborted || res.writableNeedDrain) res.destroy();
    else res.end(eventText("error", render.error(error)));
    return { bytes, answer, error };
  } finally {
    await iterator.return?.();
  }
}
