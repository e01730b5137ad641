/**
 * The models a server lists (GET /models): checks that it answers and accepts the key before anything depends on it.
 * Costs no tokens, counts towards no budget, is not stored.
 */
import { describeCause, readAll, readMessage, refusedKey } from "./request.ts";
import type { Secret } from "./secret.ts";

export type Found =
  | { readonly kind: "models"; readonly names: readonly string[] }
  /** It answers, but not with a list: it has no such route, is busy, or returns something else. */
  | { readonly kind: "unknown"; readonly reason: string }
  /** No request will work. */
  | { readonly kind: "unusable"; readonly reason: string; readonly advice: string };

/** Never throws, except when `signal` is aborted. @param url of the server, without `/models` */
export async function listModels(
  url: string,
  o: { secret: Secret; timeoutMs: number; signal: AbortSignal },
): Promise<Found> {
  const timeout = AbortSignal.timeout(o.timeoutMs);
  let status: number;
  let text: string;
  try {
    const response = await fetch(`${url.replace(/\/+$/, "")}/models`, {
      headers: o.secret.headers(),
      redirect: "error", // send the key only to the server it is meant for
      signal: AbortSignal.any([timeout, o.signal]),
    });
    status = response.status;
    text = o.secret.redact(await readAll(response));
  } catch (cause) {
    o.signal.throwIfAborted();
    if (timeout.aborted) return { kind: "unknown", reason: `no answer within ${o.timeoutMs / 1000} s` };
    const reason = o.secret.redact(describeCause(cause));
    const advice = /ENOTFOUND|EAI_AGAIN/.test(reason)
      ? "Check the host's name in teacher.endpoint.baseUrl."
      : "Start the server, or correct teacher.endpoint.baseUrl.";
    return { kind: "unusable", reason, advice };
  }
  if (status === 401 || status === 403) return { kind: "unusable", ...refusedKey(status, readMessage(text)) };
  if (status !== 200) return { kind: "unknown", reason: `GET /models returned status ${status}` };
  const names = namesIn(text);
  return names.length > 0
    ? { kind: "models", names }
    : { kind: "unknown", reason: "GET /models returned something other than a list of models" };
}

/** The ids in {data: [{id}]}; empty for anything else. */
function namesIn(text: string): string[] {
  try {
    const { data } = JSON.parse(text) as { data?: unknown };
    return (Array.isArray(data) ? data : []).flatMap((m: { id?: unknown } | null) =>
      typeof m?.id === "string" ? [m.id] : [],
    );
  } catch {
    return [];
  }
}
