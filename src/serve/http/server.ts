/**
 * The HTTP server: sockets, TLS, time limits, draining. What a request means is handle.ts's business.
 * Slow senders are cut off by Node's own header and request timers, slow readers by the write timer, many of either by
 * maxConnections.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer, type Server as TlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import type { HttpSettings } from "../../config/schema/serve-http.ts";
import { EnvironmentError } from "../../core/errors.ts";
import type { Security } from "../security/security.ts";
import { createHandler, type HandlerOptions } from "./handle.ts";

/** Whether it may listen where it is told to is asked before (assertMayListen). */
export type HttpServerOptions = Omit<HandlerOptions, "leaving">;

export interface HttpServer {
  /** Starts to listen. @throws EnvironmentError if the port is taken or the address is not this machine's. */
  listen(): Promise<{ readonly url: string; readonly port: number }>;
  /** /readyz and its like say 503 from now on; requests are still answered. */
  notReady(): void;
  /** Takes no new connections, lets running requests end, then closes. Resolves when all is closed; http.drainMs at most. */
  drain(): Promise<void>;
  /** Closes at once. */
  close(): Promise<void>;
  /** Takes the certificates that security.reload() has read. */
  reloadCertificates(): void;
}

/** How often Node looks for requests that are late. */
const checkEveryMs = 500;
const maxHeaderBytes = 16 * 1024;

export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { http, security } = options;
  let leaving = false;
  const handle = createHandler({ ...options, leaving: () => leaving });
  /** Requests under way on a socket: what is answered there must not be spoiled by the next request's faults. */
  const running = new WeakMap<object, number>();
  const begin = (req: IncomingMessage, res: ServerResponse, expectsContinue: boolean): void => {
    const { socket } = req;
    running.set(socket, (running.get(socket) ?? 0) + 1);
    res.once("close", () => running.set(socket, (running.get(socket) ?? 1) - 1));
    res.on("error", () => res.destroy());
    handle(req, res, expectsContinue).catch(() => res.destroy());
  };

  const settings = {
    maxHeaderSize: maxHeaderBytes,
    headersTimeout: http.headersTimeoutMs,
    requestTimeout: http.requestTimeoutMs,
    keepAliveTimeout: http.keepAliveMs,
    connectionsCheckingInterval: checkEveryMs,
  };
  const tls = security.tls();
  const server: Server | TlsServer = tls
    ? createTlsServer({ ...settings, ...tlsOptions(tls), handshakeTimeout: http.headersTimeoutMs })
    : createServer(settings);
  server.maxConnections = http.maxConnections;
  server.on("request", (req, res) => begin(req, res, false));
  server.on("checkContinue", (req, res) => begin(req, res, true));
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Duplex) => {
    if (socket.writable && !running.get(socket) && error.code !== "ECONNRESET") socket.write(rawAnswer(error.code));
    socket.destroy();
  });

  const closed = async (): Promise<void> => {
    if (!server.listening) return;
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  return {
    async listen() {
      await new Promise<void>((resolve, reject) => {
        server.once("error", (cause: NodeJS.ErrnoException) => reject(cannotListen(http, cause)));
        server.listen({ host: http.host, port: http.port }, resolve);
      });
      const { port, address, family } = server.address() as AddressInfo;
      const host = family === "IPv6" ? `[${address}]` : address;
      return { url: `${tls ? "https" : "http"}://${host}:${port}`, port };
    },
    notReady() {
      leaving = true;
    },
    async drain() {
      leaving = true;
      const timer = setTimeout(() => server.closeAllConnections(), http.drainMs);
      const done = closed();
      server.closeIdleConnections();
      // A connection that answers its last request now was not idle a moment ago.
      const sweep = setInterval(() => server.closeIdleConnections(), 100);
      await done;
      clearInterval(sweep);
      clearTimeout(timer);
    },
    async close() {
      leaving = true;
      const done = closed();
      server.closeAllConnections();
      await done;
    },
    reloadCertificates() {
      const material = security.tls();
      if (material && "setSecureContext" in server) server.setSecureContext(tlsOptions(material));
    },
  };
}

const tlsOptions = ({ cert, key, clientCa }: NonNullable<ReturnType<Security["tls"]>>) => ({
  cert,
  key,
  minVersion: "TLSv1.2" as const,
  ...(clientCa ? { ca: clientCa, requestCert: true, rejectUnauthorized: true } : {}),
});

/** An answer to what is not even a request. */
function rawAnswer(code: string | undefined): string {
  const [status, message] =
    code === "ERR_HTTP_REQUEST_TIMEOUT"
      ? ["408 Request Timeout", "The request did not come in time."]
      : code === "HPE_HEADER_OVERFLOW"
        ? ["431 Request Header Fields Too Large", `Headers may have ${maxHeaderBytes} bytes.`]
        : ["400 Bad Request", "This is not HTTP."];
  const body = `${JSON.stringify({ error: { code: "syntax", message, request_id: "" } })}\n`;
  return `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

function cannotListen({ host, port }: HttpSettings, cause: NodeJS.ErrnoException): EnvironmentError {
  const why = cause.code === "EADDRINUSE" ? "the port is taken" : (cause.code ?? cause.message);
  return new EnvironmentError(`cannot listen on ${host}:${port}: ${why}`, {
    cause,
    advice: "Choose another http.port, or 0 for any free one.",
  });
}
