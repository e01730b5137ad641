/**
 * Who may call, and how often. Owns the decision; knows no protocol: HTTP hands in its Authorization header, gRPC the metadata
 * of that name, both the name in the client's certificate.
 */
import type { SecuritySettings } from "../../config/schema/serve-http.ts";
import { ConfigError } from "../../core/errors.ts";
import { type Caller, Refusal } from "../request/types.ts";
import { RateLimiter } from "./rate-limit.ts";
import { readTls, type TlsMaterial } from "./tls.ts";
import { findToken, readTokens, type StoredToken } from "./tokens.ts";

/** A caller that was let in. */
export interface Principal {
  /** Of the token or the certificate; "open" where nobody is asked. Fit for logs. */
  readonly name: string;
  /** 0 = no limit. */
  readonly requestsPerSecond: number;
}

export interface Security {
  /** Nobody is asked who they are. */
  readonly open: boolean;
  readonly openMetrics: boolean;
  tls(): TlsMaterial | undefined;
  /**
   * @param authorization "Bearer TOKEN", as it came.
   * @param certificateName Name in the client's certificate, which TLS has verified already.
   * @throws Refusal "unauthenticated", which does not say what was wrong with the token.
   */
  authenticate(authorization: string | undefined, certificateName?: string): Principal;
  /**
   * @param numRequests More than one for a batch.
   * @throws Refusal "rate_limited" with the time to wait.
   */
  admit(principal: Principal, numRequests?: number): void;
  /** @param address it calls from: tells callers apart where nobody is asked who they are */
  caller(principal: Principal, address: string | undefined): Caller;
  /** Reads tokens and certificates again, each apart: a bad file keeps what it held before, and throws in the end. */
  reload(): void;
}

export function openSecurity(settings: SecuritySettings, now: () => number = () => performance.now()): Security {
  const limiter = new RateLimiter();
  let state = readState(settings);
  const burstSize = (perSecond: number): number => Math.max(1, perSecond * settings.burstSeconds);
  return {
    get open() {
      return state.tokens.length === 0 && state.tls?.clientCa === undefined;
    },
    openMetrics: settings.openMetrics,
    tls: () => state.tls,
    authenticate(authorization, certificateName) {
      if (state.tokens.length === 0)
        return { name: certificateName ?? "open", requestsPerSecond: settings.requestsPerSecond };
      const token = /^bearer +(\S+) *$/i.exec(authorization ?? "")?.[1] ?? "";
      const stored = findToken(state.tokens, token);
      if (!stored) throw new Refusal("unauthenticated", "A valid token is needed: Authorization: Bearer TOKEN.");
      return { name: stored.name, requestsPerSecond: stored.requestsPerSecond ?? settings.requestsPerSecond };
    },
    caller({ name, requestsPerSecond }, address) {
      return {
        name: name === "open" ? `open ${address ?? ""}` : name,
        charge: (requests) => limiter.charge(name, requests, requestsPerSecond, burstSize(requestsPerSecond), now()),
      };
    },
    admit({ name, requestsPerSecond }, numRequests = 1) {
      const burst = burstSize(requestsPerSecond);
      const retryAfterMs = limiter.take(name, numRequests, requestsPerSecond, burst, now());
      if (retryAfterMs > 0)
        throw new Refusal("rate_limited", `This client may send ${requestsPerSecond} requests a second.`, {
          retryAfterMs,
        });
    },
    reload() {
      try {
        state = { ...state, tokens: loadTokens(settings) };
      } finally {
        state = { ...state, tls: readTls(settings.tls) };
      }
    },
  };
}

const loadTokens = ({ tokens }: SecuritySettings): readonly StoredToken[] => (tokens === "" ? [] : readTokens(tokens));

const readState = (settings: SecuritySettings): { tokens: readonly StoredToken[]; tls: TlsMaterial | undefined } => ({
  tokens: loadTokens(settings),
  tls: readTls(settings.tls),
});

export const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);

/** Throws ConfigError if listening on this address would let anybody in without the settings saying so. */
export function assertMayListen(host: string, settings: SecuritySettings): void {
  if (isLoopback(host) || settings.tokens !== "" || settings.tls.clientCa !== "" || settings.allowOpen) return;
  throw new ConfigError(`Listening on ${host} would let everybody in who can reach this machine.`, {
    advice:
      "Give security.tokens (gr2 serve token new NAME) or security.tls.clientCa, listen on 127.0.0.1, or say security.allowOpen=true.",
  });
}

/** What an operator should know about these settings; one sentence each. */
export function listWarnings(host: string, settings: SecuritySettings): string[] {
  if (isLoopback(host)) return [];
  const warnings: string[] = [];
  if (settings.allowOpen && settings.tokens === "" && settings.tls.clientCa === "")
    warnings.push(`security.allowOpen: everybody who can reach ${host} may call.`);
  if (settings.tls.cert === "")
    warnings.push(
      `No TLS on ${host}: tokens and histories travel in the clear unless something in front encrypts them.`,
    );
  return warnings;
}
