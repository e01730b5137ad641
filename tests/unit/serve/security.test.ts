/** Tokens, limits, where to listen, certificates. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentials } from "@grpc/grpc-js";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RerankClient } from "../../../src/client/index.ts";
import { type SecuritySettings, security } from "../../../src/config/schema/serve-http.ts";
import { repositoryRoot } from "../../../src/core/paths.ts";
import { startGrpcServer } from "../../../src/serve/grpc/server.ts";
import { Metrics } from "../../../src/serve/observe/metrics.ts";
import { RateLimiter } from "../../../src/serve/security/rate-limit.ts";
import { assertMayListen, isLoopback, listWarnings, openSecurity } from "../../../src/serve/security/security.ts";
import { findToken, newToken, parseTokens } from "../../../src/serve/security/tokens.ts";
import { FakeReranker, startService } from "../../serve-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-security-"));
const write = (name: string, text: string): string => {
  const file = join(folder, name);
  writeFileSync(file, text);
  return file;
};
const settings = (values: object = {}): SecuritySettings => security.parse(values);

describe("a token", () => {
  it("is 256 random bits, and only its SHA-256 is stored", () => {
    const { token, line } = newToken("shop");
    expect(token).toMatch(/^gr2_[A-Za-z0-9_-]{43}$/);
    expect(line).toBe(`shop:sha256:${createHash("sha256").update(token).digest("hex")}`);
    expect(newToken("shop").token).not.toBe(token);
    expect(newToken("shop", 5).line).toMatch(/:5$/);
    expect(() => newToken("no colon: here")).toThrow(/is not a valid token name/);
  });

  it("is found by its whole text and nothing else", () => {
    const [a, b] = [newToken("a"), newToken("b")];
    const stored = parseTokens(`# ours\n${a.line}\n\n${b.line}:2.5 # slow\n`, "tokens");
    expect(stored.map((t) => [t.name, t.requestsPerSecond])).toEqual([
      ["a", undefined],
      ["b", 2.5],
    ]);
    expect(findToken(stored, a.token)?.name).toBe("a");
    expect(findToken(stored, b.token)?.name).toBe("b");
    // All lines are compared whatever the first ones say: of two that fit, the last one is found.
    const twice = parseTokens(`${a.line}\n${a.line.replace(/^a:/, "again:")}\n${b.line}`, "tokens");
    expect(findToken(twice, a.token)?.name).toBe("again");
    const digest = a.line.split(":")[2] ?? "";
    for (const wrong of [
      "",
      a.token.slice(0, -1),
      `${a.token}x`,
      a.token.toUpperCase(),
      digest,
      a.line,
      "x".repeat(1e6),
    ])
      expect(findToken(stored, wrong)).toBeUndefined();
    fc.assert(fc.property(fc.string(), (text) => findToken(stored, text) === undefined));
  });

  it("file names the line that is wrong", () => {
    const { line } = newToken("a");
    for (const bad of ["a:b", "a:sha256:12", `${line}:x`, `${line}:`, `${line}:1:2`, `${line}:-1`, `a b:${line}`])
      expect(() => parseTokens(`${line}\n${bad}`, "tokens")).toThrow(/^tokens:2 is not a token line/);
    const empty = settings({ tokens: write("empty", "# none\n") });
    expect(() => openSecurity(empty)).toThrow(/contains no token/);
    expect(() => openSecurity(settings({ tokens: join(folder, "missing") }))).toThrow(/cannot be read/);
  });
});

describe("authentication", () => {
  const [shop, app] = [newToken("shop"), newToken("app", 1)];
  const file = write("tokens", `${shop.line}\n`);
  const guard = openSecurity(settings({ tokens: file, requestsPerSecond: 10 }));

  it("wants a bearer token, and does not say what is wrong with another", () => {
    expect(guard.authenticate(`Bearer ${shop.token}`)).toEqual({ name: "shop", requestsPerSecond: 10 });
    expect(guard.authenticate(`bearer   ${shop.token} `).name).toBe("shop");
    const messages = [
      undefined,
      "",
      "Bearer",
      `Basic ${shop.token}`,
      shop.token,
      `Bearer ${app.token}`,
      "Bearer a b",
    ].map((header) => {
      try {
        guard.authenticate(header, "a certificate does not replace a token");
        return "let in";
      } catch (e) {
        return (e as Error).message;
      }
    });
    expect(new Set(messages)).toEqual(new Set(["A valid token is required: Authorization: Bearer TOKEN."]));
  });

  it("reads tokens again, and keeps the old ones if the file is bad", () => {
    writeFileSync(file, `${shop.line}\n${app.line}\n`);
    guard.reload();
    expect(guard.authenticate(`Bearer ${app.token}`)).toEqual({ name: "app", requestsPerSecond: 1 });
    writeFileSync(file, "nonsense\n");
    expect(() => guard.reload()).toThrow(/tokens:1/);
    expect(guard.authenticate(`Bearer ${app.token}`).name).toBe("app");
  });

  it("lets everybody in if nothing is required", () => {
    expect(openSecurity(settings()).authenticate(undefined)).toEqual({ name: "open", requestsPerSecond: 0 });
  });
});

describe("a client's limit", () => {
  it("is a bucket that fills with time", () => {
    const limiter = new RateLimiter();
    const take = (nowMs: number, n = 1) => limiter.take("a", n, 2, 4, nowMs); // 2 a second, 4 at once
    expect([take(0), take(0), take(0), take(0)]).toEqual([0, 0, 0, 0]);
    expect(take(0)).toBe(500); // the next token is there after half a second
    expect(take(400)).toBe(100);
    expect(take(500)).toBe(0);
    expect(take(500)).toBe(500);
    expect(take(10_000, 10)).toBe(0); // 4 are there, a batch of 10 leaves a debt of 6
    expect(take(10_000)).toBe(3500); // (1 + 6) / 2 a second
    expect(limiter.take("b", 1, 2, 4, 10_000)).toBe(0);
    expect(limiter.take("a", 1, 0, 4, 10_000)).toBe(0); // 0: no limit
  });

  it("never lets through more than burst and rate allow", () => {
    const times = fc.array(fc.nat(200), { maxLength: 200 });
    fc.assert(
      fc.property(times, fc.integer({ min: 1, max: 20 }), (gaps, rate) => {
        const limiter = new RateLimiter();
        let now = 0;
        let allowed = 0;
        for (const gap of gaps) {
          now += gap;
          if (limiter.take("a", 1, rate, 3, now) === 0) allowed++;
        }
        return allowed <= 3 + (now / 1000) * rate + 1e-9;
      }),
    );
  });

  it("refuses with the time to wait", () => {
    let now = 0;
    const guard = openSecurity(settings({ requestsPerSecond: 1, burstSeconds: 1 }), () => now);
    const open = guard.authenticate(undefined);
    guard.admit(open);
    expect(() => guard.admit(open)).toThrow(expect.objectContaining({ code: "rate_limited", retryAfterMs: 1000 }));
    now = 1000;
    guard.admit(open);
  });
});

describe("where to listen", () => {
  it("is loopback, unless callers are asked who they are or the settings say so", () => {
    for (const host of ["127.0.0.1", "127.1.2.3", "::1", "localhost"]) assertMayListen(host, settings());
    for (const host of ["0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "1270.0.0.1"]) {
      expect(isLoopback(host)).toBe(false);
      expect(() => assertMayListen(host, settings())).toThrow(/let anyone who can reach this machine call/);
      assertMayListen(host, settings({ tokens: "file" }));
      assertMayListen(host, settings({ tls: { clientCa: "file" } }));
      assertMayListen(host, settings({ allowOpen: true }));
    }
    expect(() => assertMayListen("0.0.0.0", settings({ tls: { cert: "c", key: "k" } }))).toThrow(
      /let anyone who can reach this machine call/,
    );
  });

  it("comes with warnings", () => {
    expect(listWarnings("127.0.0.1", settings({ allowOpen: true }))).toEqual([]);
    expect(listWarnings("0.0.0.0", settings({ allowOpen: true }))).toHaveLength(2);
    expect(listWarnings("0.0.0.0", settings({ tokens: "f" }))).toEqual([expect.stringMatching(/^No TLS/)]);
    expect(listWarnings("0.0.0.0", settings({ tokens: "f", tls: { cert: "c" } }))).toEqual([]);
  });
});

const openssl = (...args: string[]): void => {
  execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
};

/**
 * The authority, the service and a client as docs/serving-http.md makes them, and a stranger that another authority
 * signed.
 */
function makeCertificates(): void {
  const documented = /```sh\n(openssl req[\s\S]*?)```/.exec(
    readFileSync(join(repositoryRoot, "docs/serving-http.md"), "utf8"),
  );
  execFileSync("bash", ["-ec", documented?.[1] ?? "exit 1"], { cwd: folder, stdio: "pipe" });
  const self = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=stranger"];
  openssl("req", ...self, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "stranger.key", "-out", "stranger.pem");
}

const hasOpenssl = (() => {
  try {
    openssl("version");
    return true;
  } catch {
    return false;
  }
})();

describe.skipIf(!hasOpenssl)("certificates", () => {
  if (hasOpenssl) makeCertificates();
  const path = (name: string): string => join(folder, name);
  const tls = { cert: path("server.pem"), key: path("server.key") };
  const body = JSON.stringify({ query: "q", documents: ["a"] });

  /** Status, or the error's code. Node's fetch takes no certificates; its https does. */
  const call = async (port: number, options: object): Promise<number | string> =>
    new Promise((resolve) => {
      const headers = { "content-type": "application/json", "content-length": body.length };
      const req = request(
        { port, host: "127.0.0.1", path: "/v2/rerank", method: "POST", headers, ...options },
        (res) => {
          res.resume();
          resolve(res.statusCode ?? 0);
        },
      );
      req.on("error", (e: NodeJS.ErrnoException) => resolve(e.code ?? e.message));
      req.end(body);
    });
  const file = (name: string): Buffer => readFileSync(path(name));
  const certificate = (name: string) => ({ cert: file(`${name}.pem`), key: file(`${name}.key`) });

  it("encrypt", async () => {
    const service = await startService({ security: { tls } });
    try {
      expect(service.url).toMatch(/^https:/);
      expect(await call(service.port, { ca: file("ca.pem") })).toBe(200);
      expect(await call(service.port, { ca: file("stranger.pem") })).toMatch(/UNABLE_TO_VERIFY|SELF_SIGNED/);
      expect(await call(service.port, { ca: file("ca.pem"), maxVersion: "TLSv1.1" })).toMatch(/SSL|TLS/);
      await expect(fetch(`http://127.0.0.1:${service.port}/healthz`)).rejects.toThrow();
      const noise = [
        Buffer.from("\x16\x03\x01\xff\xff\x01\x00"),
        Buffer.alloc(70_000, 0x16),
        Buffer.from("GET / HTTP/1.1\r\n\r\n"),
      ];
      for (const bytes of noise)
        await new Promise<void>((resolve) => {
          const socket = connect(service.port, "127.0.0.1", () => socket.end(bytes));
          socket
            .resume()
            .on("error", () => undefined)
            .on("close", () => resolve());
        });
      expect(await call(service.port, { ca: file("ca.pem") })).toBe(200);
    } finally {
      await service.server.close();
    }
  });

  it("say who a client is, and keep others out", async () => {
    const service = await startService({ security: { tls: { ...tls, clientCa: path("ca.pem") } } });
    try {
      const ca = file("ca.pem");
      expect(await call(service.port, { ca, ...certificate("shop") })).toBe(200);
      expect(service.log.at(-1)?.client).toBe("shop");
      expect(await call(service.port, { ca })).toMatch(/ERR_SSL|ECONNRESET|EPIPE/);
      expect(await call(service.port, { ca, ...certificate("stranger") })).toMatch(/ERR_SSL|ECONNRESET|EPIPE/);
      expect(service.reranker.requests).toHaveLength(1);
    } finally {
      await service.server.close();
    }
  });

  it("do not replace a token where both are asked for", async () => {
    const { token, line } = newToken("app");
    const both = { tokens: write("both", line), tls: { ...tls, clientCa: path("ca.pem") } };
    const service = await startService({ security: both });
    try {
      const options = { ca: file("ca.pem"), ...certificate("shop") };
      expect(await call(service.port, options)).toBe(401);
      const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
      expect(await call(service.port, { ...options, headers })).toBe(200);
      expect(service.log.at(-1)?.client).toBe("app");
    } finally {
      await service.server.close();
    }
  });

  it("can be changed while the service runs", async () => {
    const renewed = {
      cert: write("live.pem", file("server.pem").toString()),
      key: write("live.key", file("server.key").toString()),
    };
    const service = await startService({ security: { tls: renewed } });
    try {
      write("live.pem", file("stranger.pem").toString());
      expect(() => service.security.reload()).toThrow(/is not the key of/);
      expect(await call(service.port, { ca: file("ca.pem") })).toBe(200);
      write("live.key", file("stranger.key").toString());
      service.security.reload();
      service.server.reloadCertificates();
      expect(await call(service.port, { ca: file("stranger.pem") })).toBe(200);
    } finally {
      await service.server.close();
    }
  });

  it("of the gRPC side can be changed too, and let only known clients in", async () => {
    const renewed = {
      cert: write("grpc.pem", file("server.pem").toString()),
      key: write("grpc.key", file("server.key").toString()),
    };
    const guard = openSecurity(settings({ tls: { ...renewed, clientCa: path("ca.pem") } }));
    const server = await startGrpcServer({
      ...{ reranker: new FakeReranker(), security: guard, host: "127.0.0.1", port: 0, maxRequestBytes: 1024 },
      ...{ defaultDeadlineMs: 1_000, metrics: new Metrics(), log: () => {}, access: () => {} },
    });
    const connects = async (trusted: string, own: string): Promise<boolean> => {
      const secure = credentials.createSsl(file(trusted), file(`${own}.key`), file(`${own}.pem`));
      const client = new RerankClient(`127.0.0.1:${server.port}`, { credentials: secure, timeoutMs: 1_000 });
      const model = await client.getModel().catch(() => undefined);
      client.close();
      return model !== undefined;
    };
    try {
      expect([await connects("ca.pem", "shop"), await connects("ca.pem", "stranger")]).toEqual([true, false]);
      write("grpc.pem", file("stranger.pem").toString());
      write("grpc.key", file("stranger.key").toString());
      guard.reload();
      server.reloadCertificates();
      expect([await connects("stranger.pem", "shop"), await connects("ca.pem", "shop")]).toEqual([true, false]);
    } finally {
      await server.drain(0);
    }
  });

  it("that are no good are named before anything listens", () => {
    const open = (values: object) => () => openSecurity(settings({ tls: values }));
    expect(open({ cert: tls.cert })).toThrow(/needs both cert and key/);
    expect(open({ clientCa: path("ca.pem") })).toThrow(/needs both cert and key/);
    expect(open({ ...tls, key: path("shop.key") })).toThrow(/shop.key is not the key of/);
    expect(open({ ...tls, cert: path("server.key") })).toThrow(/security.tls.cert: .* contains no certificate/);
    expect(open({ ...tls, clientCa: path("names") })).toThrow(/security.tls.clientCa: .* contains no certificate/);
    expect(open({ ...tls, key: path("missing") })).toThrow(/security.tls.key: .* cannot be read/);
  });
});
