/**
 * Bearer tokens: 256 random bits, shown once, stored as their SHA-256. A slow hash protects passwords; for 256 random
 * bits it adds nothing and would slow down every request.
 *
 * A token file has one line per token, `NAME:sha256:HEX` or `NAME:sha256:HEX:REQUESTS_PER_SECOND`; `#` begins a
 * comment. Two lines with the same name are two tokens of one client, which allows replacing a token.
 */
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { ConfigError } from "../../core/errors.ts";

export interface StoredToken {
  readonly name: string;
  /** 32 bytes. */
  readonly digest: Buffer;
  /** Undefined: the service's limit; 0: no limit. */
  readonly requestsPerSecond: number | undefined;
}

const namePattern = /^[A-Za-z0-9._-]{1,64}$/;
/** Maximum length of a token; longer input is not hashed. */
const maxTokenLength = 512;

/** A caller's token as "Bearer TOKEN", wherever clients put it: authorization, x-api-key or api-key. */
export function readAuthorization(header: (name: string) => unknown): string | undefined {
  const authorization = header("authorization");
  if (authorization !== undefined) return String(authorization);
  const key = header("x-api-key") ?? header("api-key");
  return key === undefined ? undefined : `Bearer ${String(key)}`;
}

const digestToken = (token: string): Buffer => createHash("sha256").update(token).digest();

/** A new token and the line to store. The token cannot be recovered later. */
export function newToken(name: string, requestsPerSecond?: number): { readonly token: string; readonly line: string } {
  if (!namePattern.test(name))
    throw new ConfigError(`"${name.slice(0, 64)}" is not a valid token name.`, {
      advice: "Use 1 to 64 letters, digits, dots, underscores or dashes.",
    });
  const token = `gr2_${randomBytes(32).toString("base64url")}`;
  const rate = requestsPerSecond === undefined ? "" : `:${requestsPerSecond}`;
  return { token, line: `${name}:sha256:${digestToken(token).toString("hex")}${rate}` };
}

export function parseTokens(text: string, file: string): StoredToken[] {
  return text.split(/\r?\n/).flatMap((line, i) => {
    const content = line.replace(/#.*$/, "").trim();
    if (content === "") return [];
    const [name = "", kind, digest = "", rate, ...rest] = content.split(":");
    const perSecond = rate === undefined ? undefined : Number(rate);
    const valid =
      namePattern.test(name) &&
      kind === "sha256" &&
      /^[0-9a-f]{64}$/.test(digest) &&
      rest.length === 0 &&
      (perSecond === undefined || (rate !== "" && Number.isFinite(perSecond) && perSecond >= 0));
    if (!valid)
      throw new ConfigError(`${file}:${i + 1} is not a token line.`, {
        advice:
          "Lines are NAME:sha256:HEX, or NAME:sha256:HEX:REQUESTS_PER_SECOND; gr2 serve token new NAME creates one.",
      });
    return [{ name, digest: Buffer.from(digest, "hex"), requestsPerSecond: perSecond }];
  });
}

export function readTokens(file: string): StoredToken[] {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (cause) {
    throw new ConfigError(`security.tokens: ${file} cannot be read.`, { cause });
  }
  const tokens = parseTokens(text, file);
  if (tokens.length === 0)
    throw new ConfigError(`security.tokens: ${file} contains no token: nobody could call the service.`, {
      advice: "gr2 serve token new NAME creates one.",
    });
  return tokens;
}

/**
 * The stored token that matches a caller's. Takes the same time whether and whichever token matches: all digests are
 * compared, each in constant time.
 */
export function findToken(stored: readonly StoredToken[], token: string): StoredToken | undefined {
  const digest = digestToken(token.length > maxTokenLength ? "" : token);
  let found: StoredToken | undefined;
  for (const candidate of stored) if (timingSafeEqual(candidate.digest, digest)) found = candidate;
  return found;
}
