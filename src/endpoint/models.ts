/**
 * Which models a server says it has (GET /models): whether it is there at all and takes the key, before anything depends
 * on it. Costs no tokens, counts into no budget, is kept nowhere.
 */
import { describeCause, readAll, readMessage, refusedKey } from "./request.ts";
import type { Secret } from "./secret.ts";

export type Found =
  | { readonly kind: "models"; readonly names: readonly string[] }
  /** It is there, but does not say: it has no such route, is busy, or answers something else. */
  | { readonly kind: "unknown"; readonly reason: string }
  /** No request will work. */
  | { readonly kind: "unusable"; readonly reason: string; readonly advice: string };

/** Never throws, except when `signal` is aborted. @param url of the server, `/models` left out */
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
      redirect: "error", // a key goes to the server it is meant for
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
  if (status !== 200) return { kind: "unknown", reason: `GET /models is answered with ${status}` };
  const names = namesIn(text);
  return names.length > 0
    ? { kind: "models", names }
    : { kind: "unknown", reason: "GET /models is answered with something else" };
}

/** Of {data: [{id}]}; what is no such thing has none. */
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
