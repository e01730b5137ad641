/**
 * One chat completion over HTTP: what was sent, what came back, and whether a retry can help. Knows nothing of retries,
 * budgets or files (endpoint.ts).
 */
import type { Usage } from "./budget.ts";
import type { Secret } from "./secret.ts";

export interface ChatRequest {
  readonly model: string;
  readonly messages: readonly { readonly role: "user"; readonly content: string }[];
  readonly temperature: number;
  readonly max_tokens: number;
  readonly seed: number;
  readonly [extra: string]: unknown;
}

export type Outcome =
  /** `cut`: the server stopped at max_tokens. */
  | { readonly kind: "answer"; readonly text: string; readonly cut: boolean; readonly usage: Usage }
  /** Worth a retry: the server is down, busy or broken, or the connection was cut. */
  | { readonly kind: "again"; readonly reason: string; readonly afterMs: number }
  /** This request will never work; others may. */
  | { readonly kind: "refused"; readonly reason: string }
  /** No request will work: the key, the address or the model is wrong. */
  | { readonly kind: "hopeless"; readonly reason: string; readonly advice: string };

/** Most bytes to read of an answer. */
const maxBytes = 4_000_000;

/** Never throws, except when `signal` is aborted. @param url of the server, without `/chat/completions` */
export async function chat(
  url: string,
  body: ChatRequest,
  o: { secret: Secret; timeoutMs: number; signal: AbortSignal },
): Promise<Outcome> {
  const again = (reason: string, afterMs = 0): Outcome => ({ kind: "again", reason: o.secret.redact(reason), afterMs });
  const timeout = AbortSignal.timeout(o.timeoutMs);
  let status: number;
  let headers: Headers;
  let text: string;
  try {
    const response = await fetch(`${url.replace(/\/+$/, "")}/chat/completions`, {
      method: "POST",
      headers: { "content-type": "application/json", ...o.secret.headers() },
      body: JSON.stringify(body),
      redirect: "error", // send the key only to the server it is meant for
      signal: AbortSignal.any([timeout, o.signal]),
    });
    ({ status, headers } = response);
    text = await readAll(response);
  } catch (cause) {
    o.signal.throwIfAborted();
    if (timeout.aborted) return again(`no answer within ${o.timeoutMs / 1000} s`);
    return again(describeCause(cause));
  }
  const said = o.secret.redact(readMessage(text));
  if (status === 401 || status === 403) return { kind: "hopeless", ...refusedKey(status, said) };
  if (status === 404)
    return {
      kind: "hopeless",
      reason: `the server knows no such address or model (404): ${said}`,
      advice: "Check teacher.endpoint.baseUrl (it usually ends with /v1) and teacher.model.",
    };
  if (status === 408 || status === 425 || status === 429 || status >= 500)
    return again(`the server answers ${status}: ${said}`, retryAfterMs(headers.get("retry-after")));
  if (status !== 200) return { kind: "refused", reason: `the server answers ${status}: ${said}` };
  return parseAnswer(text) ?? again(`the server's answer is not a chat completion: ${said}`);
}

/** What 401 and 403 mean. */
export const refusedKey = (status: number, said: string): { readonly reason: string; readonly advice: string } => ({
  reason: `the server refuses the key (${status}): ${said}`,
  advice: "Check the key in the environment variable that teacher.endpoint.apiKeyEnv names.",
});

/** Throws for an answer that is too long. */
export async function readAll(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of response.body ?? []) {
    bytes += part.length;
    if (bytes > maxBytes) throw new Error(`the answer is longer than ${maxBytes} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

interface Body {
  readonly choices?: readonly { readonly message?: { readonly content?: unknown }; readonly finish_reason?: unknown }[];
  readonly usage?: { readonly prompt_tokens?: unknown; readonly completion_tokens?: unknown };
  readonly error?: { readonly message?: unknown } | string;
  readonly message?: unknown;
}

function parseAnswer(text: string): Outcome | undefined {
  const body = parsed(text);
  const content = body?.choices?.[0]?.message?.content;
  if (typeof content !== "string") return undefined;
  const { prompt_tokens, completion_tokens } = body?.usage ?? {};
  const number = (value: unknown): number => (typeof value === "number" && value >= 0 ? value : -1);
  const usage = { inputTokens: number(prompt_tokens), outputTokens: number(completion_tokens) };
  return { kind: "answer", text: content, cut: body?.choices?.[0]?.finish_reason === "length", usage };
}

function parsed(text: string): Body | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null ? (value as Body) : undefined;
  } catch {
    return undefined;
  }
}

/** A server's error message in one short line. */
export function readMessage(text: string): string {
  const body = parsed(text);
  const error = typeof body?.error === "string" ? body.error : (body?.error?.message ?? body?.message);
  const said = typeof error === "string" ? error : text;
  const line = said.replace(/\s+/g, " ").trim().slice(0, 200);
  return line === "" ? "(an empty answer)" : line;
}

/** Retry-After as seconds or a date; 0 if absent. */
function retryAfterMs(value: string | null): number {
  if (value === null) return 0;
  const seconds = Number(value);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(ms) ? Math.max(0, ms) : 0;
}

/** fetch only says "fetch failed"; the reason is in its cause. */
export function describeCause(error: unknown): string {
  const inner = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  const { code } = inner as { code?: string };
  const message = inner instanceof Error ? inner.message : String(inner);
  return code && !message.includes(code) ? `${code} ${message}`.trim() : message;
}
