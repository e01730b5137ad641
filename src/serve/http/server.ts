/**
 * The HTTP server: sockets, TLS, time limits, draining. Requests are handled in handle.ts.
 * Slow senders are cut off by Node's own header and request timers, slow readers by the write timer; maxConnections
 * limits their number.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer, type Server as TlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import type { HttpSettings } from "../../config/schema/serve-http.ts";
import { EnvironmentError } from "../../core/errors.ts";
import type { Security } from "../security/security.ts";
import { createHandler, type HandlerOptions } from "./handle.ts";

/** Call assertMayListen first: it checks whether the service may listen on this address. */
export type HttpServerOptions = Omit<HandlerOptions, "leaving">;

export interface HttpServer {
  /** Starts listening. @throws EnvironmentError if the port is taken or the address is not this machine's. */
  listen(): Promise<{ readonly url: string; readonly port: number }>;
  /** Makes /readyz and its aliases answer 503; requests are still answered. */
  notReady(): void;
  /** Accepts no new connections, waits for running requests, then closes; within http.drainMs. */
  drain(): Promise<void>;
  /** Closes immediately. */
  close(): Promise<void>;
  /** Applies the certificates that security.reload() has read. */
  reloadCertificates(): void;
}

/** How often Node checks for slow requests. */
const checkEveryMs = 500;
const maxHeaderBytes = 16 * 1024;

export function createHttpServer(options: HttpServerOptions): HttpServer {
  const { http, security } = options;
  let leaving = false;
  const handle = createHandler({ ...options, leaving: () => leaving });
  /** Requests in progress per socket: an error of the next request must not corrupt their answers. */
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
      // A connection that is finishing its last request is not idle yet.
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

/** The answer to bytes that are not an HTTP request. */
function rawAnswer(code: string | undefined): string {
  const [status, message] =
    code === "ERR_HTTP_REQUEST_TIMEOUT"
      ? ["408 Request Timeout", "The request did not arrive in time."]
      : code === "HPE_HEADER_OVERFLOW"
        ? ["431 Request Header Fields Too Large", `Headers may have at most ${maxHeaderBytes} bytes.`]
        : ["400 Bad Request", "This is not HTTP."];
  const body = `${JSON.stringify({ error: { code: "syntax", message, request_id: "" } })}\n`;
  return (
    `HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: ` +
    `${Buffer.byteLength(body)}\r\n\r\n${body}`
  );
}

function cannotListen({ host, port }: HttpSettings, cause: NodeJS.ErrnoException): EnvironmentError {
  const why = cause.code === "EADDRINUSE" ? "the port is taken" : (cause.code ?? cause.message);
  return new EnvironmentError(`cannot listen on ${host}:${port}: ${why}`, {
    cause,
    advice: "Choose another http.port, or 0 for any free one.",
  });
}
