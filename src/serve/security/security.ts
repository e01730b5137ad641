/**
 * Decides who may call, and how often. Independent of protocols: HTTP passes the token of its headers, gRPC
 * that of its metadata, and both the name in the client's certificate.
 */
import type { SecuritySettings } from "../../config/schema/serve-http.ts";
import { ConfigError } from "../../core/errors.ts";
import { type Caller, Refusal } from "../request/types.ts";
import { RateLimiter } from "./rate-limit.ts";
import { readTls, type TlsMaterial } from "./tls.ts";
import { findToken, readTokens, type StoredToken } from "./tokens.ts";

/** An admitted caller. */
export interface Principal {
  /** Name of the token or certificate; "open" without authentication. Safe to log. */
  readonly name: string;
  /** 0 = no limit. */
  readonly requestsPerSecond: number;
}

export interface Security {
  /** Without authentication. */
  readonly open: boolean;
  readonly openMetrics: boolean;
  tls(): TlsMaterial | undefined;
  /**
   * @param authorization "Bearer TOKEN", as received or made from an API key header.
   * @param certificateName Name in the client's certificate, already verified by TLS.
   * @throws Refusal "unauthenticated", which does not say what was wrong with the token.
   */
  authenticate(authorization: string | undefined, certificateName?: string): Principal;
  /**
   * @param numRequests More than one for a batch.
   * @throws Refusal "rate_limited" with the time to wait.
   */
  admit(principal: Principal, numRequests?: number): void;
  /** @param address of the caller: distinguishes callers without authentication */
  caller(principal: Principal, address: string | undefined): Caller;
  /**
   * Rereads tokens and certificates independently: a bad file leaves the old values in use, and this throws at the end.
   */
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
      if (!stored) throw new Refusal("unauthenticated", "A valid token is required: Authorization: Bearer TOKEN.");
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
        throw new Refusal("rate_limited", `This client may send ${requestsPerSecond} requests per second.`, {
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

/** Throws ConfigError if listening on this address would admit anyone, unless the settings allow it. */
export function assertMayListen(host: string, settings: SecuritySettings): void {
  if (isLoopback(host) || settings.tokens !== "" || settings.tls.clientCa !== "" || settings.allowOpen) return;
  throw new ConfigError(`Listening on ${host} would let anyone who can reach this machine call.`, {
    advice:
      "Set security.tokens (gr2 serve token new NAME) or security.tls.clientCa, " +
      "listen on 127.0.0.1, or set security.allowOpen=true.",
  });
}

/** Warnings about these settings for the operator; one sentence each. */
export function listWarnings(host: string, settings: SecuritySettings): string[] {
  if (isLoopback(host)) return [];
  const warnings: string[] = [];
  if (settings.allowOpen && settings.tokens === "" && settings.tls.clientCa === "")
    warnings.push(`security.allowOpen: anyone who can reach ${host} may call.`);
  if (settings.tls.cert === "")
    warnings.push(`No TLS on ${host}: tokens and histories are sent unencrypted unless a proxy encrypts them.`);
  return warnings;
}
