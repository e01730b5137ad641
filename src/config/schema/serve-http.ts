/** Settings of the HTTP server, authentication, and limits on requests. */
import { z } from "zod";
import { count, positive } from "./numbers.ts";

export const http = z
  .strictObject({
    host: z
      .string()
      .min(1)
      .default("127.0.0.1")
      .describe("Address to listen on. Any address but loopback needs security.tokens or security.tls.clientCa."),
    port: z.int().min(0).max(65_535).default(8080).describe("0 = any free port."),
    hosts: z
      .array(z.string().min(1))
      .default([])
      .describe(
        "Further Host names accepted by a loopback service without authentication; others are refused (DNS rebinding).",
      ),
    headersTimeoutMs: count.default(10_000).describe("Time within which a client must send its headers."),
    requestTimeoutMs: count.default(20_000).describe("Time within which a client must send its whole request."),
    keepAliveMs: count.default(65_000).describe("Idle time after which a connection is closed."),
    writeTimeoutMs: count
      .default(20_000)
      .describe("Time after which a client that reads nothing of its answer is disconnected."),
    drainMs: count.default(10_000).describe("Time that running requests have to finish on shutdown."),
    maxConnections: count.default(2048).describe("Maximum number of connections; further ones are closed immediately."),
    page: z.boolean().default(true).describe("Serve the try-it page at /."),
  })
  .prefault({});

export const security = z
  .strictObject({
    tokens: z
      .string()
      .default("")
      .describe("File of hashed bearer tokens, one per line (gr2 serve token new NAME); empty = no token is required."),
    tls: z
      .strictObject({
        cert: z.string().default("").describe("PEM file: the service's certificate with its chain; empty = no TLS."),
        key: z.string().default("").describe("PEM file: the certificate's private key."),
        clientCa: z
          .string()
          .default("")
          .describe(
            "PEM file: CAs that sign client certificates. If set, every client must present a certificate (mTLS).",
          ),
      })
      .prefault({}),
    requestsPerSecond: z
      .number()
      .nonnegative()
      .default(0)
      .describe(
        "Requests per second allowed to each client, unless its line in the token file sets another rate; " +
          "0 = no limit.",
      ),
    burstSeconds: positive.default(2).describe("Burst size, in seconds' worth of requests."),
    openMetrics: z.boolean().default(false).describe("Answer /metrics without a token."),
    allowOpen: z
      .boolean()
      .default(false)
      .describe("Allow listening beyond loopback without authentication. For closed networks only."),
  })
  .prefault({});

export const limits = z
  .strictObject({
    maxCandidates: count
      .default(1000)
      .describe("Maximum candidates per request; in mode think the limit of the model's context is lower."),
    maxHistory: count.default(1000).describe("Maximum history items per request."),
    maxItems: count.default(1000).describe("Maximum items per registration."),
    maxTextBytes: count.default(4096).describe("Maximum UTF-8 bytes of one item's text."),
    maxRequestBytes: count.default(4 << 20).describe("Maximum bytes of a request."),
    maxJsonDepth: count.default(8).describe("Maximum nesting depth of a JSON body."),
    maxInFlight: count.default(1024).describe("Maximum HTTP requests in flight; further ones are refused immediately."),
    defaultDeadlineMs: count.default(2_000).describe("Default deadline of requests."),
    maxDeadlineMs: count.default(60_000).describe("Longest deadline that a caller may set."),
  })
  .prefault({});

export type HttpSettings = Readonly<z.output<typeof http>>;
export type SecuritySettings = Readonly<z.output<typeof security>>;
export type LimitSettings = Readonly<z.output<typeof limits>>;
