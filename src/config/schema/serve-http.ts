/** Settings of the service's edge: the HTTP server, who may call, and how much a request may ask for. */
import { z } from "zod";
import { count, positive } from "./numbers.ts";

export const http = z
  .strictObject({
    host: z
      .string()
      .min(1)
      .default("127.0.0.1")
      .describe("Address to listen on. Anything but loopback needs security.tokens or security.tls.clientCa."),
    port: z.int().min(0).max(65_535).default(8080).describe("0 = any free port."),
    hosts: z
      .array(z.string().min(1))
      .default([])
      .describe("Further names clients may call an open loopback service by; others are refused (DNS rebinding)."),
    headersTimeoutMs: count.default(10_000).describe("A client has this long to send its headers."),
    requestTimeoutMs: count.default(20_000).describe("A client has this long to send a whole request."),
    keepAliveMs: count.default(65_000).describe("An idle connection is closed after this long."),
    writeTimeoutMs: count
      .default(20_000)
      .describe("A client that takes nothing of its answer for this long is cut off."),
    drainMs: count.default(10_000).describe("On shutdown, running requests have this long to end."),
    maxConnections: count.default(2048).describe("Connections beyond this are closed at once."),
    page: z.boolean().default(true).describe("Serve the try-it page at /."),
  })
  .prefault({});

export const security = z
  .strictObject({
    tokens: z
      .string()
      .default("")
      .describe("File of hashed bearer tokens, a line each (gr2 serve token new NAME); empty = none are asked for."),
    tls: z
      .strictObject({
        cert: z.string().default("").describe("PEM file: the service's certificate and its chain; empty = no TLS."),
        key: z.string().default("").describe("PEM file: the certificate's private key."),
        clientCa: z
          .string()
          .default("")
          .describe("PEM file: authorities of client certificates. Given: every client must show one (mTLS)."),
      })
      .prefault({}),
    requestsPerSecond: z
      .number()
      .nonnegative()
      .default(0)
      .describe("Requests a second of each client, unless its token's line says otherwise; 0 = no limit."),
    burstSeconds: positive.default(2).describe("So many seconds' worth of requests may come at once."),
    openMetrics: z.boolean().default(false).describe("Answer /metrics without a token."),
    allowOpen: z
      .boolean()
      .default(false)
      .describe("Listen beyond loopback although nobody is asked who they are. For closed networks only."),
  })
  .prefault({});

export const limits = z
  .strictObject({
    maxCandidates: count.default(100).describe("Candidates of a request; the model's own limit may be lower."),
    maxHistory: count.default(1000).describe("History items of a request."),
    maxItems: count.default(1000).describe("Items of one registration."),
    maxTextBytes: count.default(4096).describe("UTF-8 bytes of one item's text."),
    maxRequestBytes: count.default(4 << 20).describe("Bytes of a request."),
    maxJsonDepth: count.default(8).describe("Nested lists and objects of a JSON body."),
    maxInFlight: count.default(1024).describe("Requests read or answered at once over HTTP; more are refused at once."),
    defaultDeadlineMs: count.default(2_000).describe("Time to the answer where the caller names none."),
    maxDeadlineMs: count.default(60_000).describe("Longest time to the answer a caller may ask for."),
  })
  .prefault({});

export type HttpSettings = Readonly<z.output<typeof http>>;
export type SecuritySettings = Readonly<z.output<typeof security>>;
export type LimitSettings = Readonly<z.output<typeof limits>>;
