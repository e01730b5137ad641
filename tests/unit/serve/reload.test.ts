/** SIGHUP: tokens and certificates count at once, however long a run takes to load; many signals ask for one load. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { security as securitySchema } from "../../../src/config/schema/serve-http.ts";
import { coalesce } from "../../../src/serve/reload.ts";
import { openSecurity } from "../../../src/serve/security/security.ts";
import { newToken } from "../../../src/serve/security/tokens.ts";
import { serve } from "../../../src/serve/serve.ts";
import { FakeWorker } from "../../../src/worker/fake.ts";
import { GatedWorker, makeRuns, until } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-reload-"));
let root = "";
beforeAll(async () => {
  root = await makeRuns(folder, { first: [] });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it("calls while one runs become one more run, which sees them all", async () => {
  const ends: (() => void)[] = [];
  let runs = 0;
  const call = coalesce(() => {
    runs++;
    return new Promise<void>((resolve) => ends.push(resolve));
  });
  const done: number[] = [];
  const note = (n: number) => () => void done.push(n);
  const calls = [call().then(note(1)), call().then(note(2)), call().then(note(3))];
  expect([runs, done]).toEqual([1, []]);
  ends[0]?.();
  await until(() => runs === 2);
  const fourth = call().then(note(4));
  expect(done).toEqual([1]);
  ends[1]?.();
  await Promise.all(calls);
  expect([runs, done]).toEqual([3, [1, 2, 3]]);
  ends[2]?.();
  await fourth;
  void call();
  expect(runs).toBe(4); // and from idle again
  ends[3]?.();
});

describe("a reload", () => {
  it("takes a revoked token out while a run is loading, and loads once for many signals", async () => {
    const file = join(folder, "tokens");
    const [kept, revoked] = [newToken("kept"), newToken("revoked")];
    writeFileSync(file, `${kept.line}\n${revoked.line}\n`);
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    let started = 0;
    const log: string[] = [];
    const service = await serve({
      ...{ root, name: "first", access: () => {}, signal: new AbortController().signal },
      overrides: ["serve.grpc.port=0", "serve.http.port=0", `serve.security.tokens=${file}`],
      log: (message) => log.push(message),
      startWorker: async () => {
        const worker = new GatedWorker();
        if (started++ > 0)
          worker.loadModel = async (request) => {
            await gate;
            return FakeWorker.prototype.loadModel.call(worker, request);
          };
        return { client: worker, close: async () => {} };
      },
    });
    const statusWith = async (token: string): Promise<number> => {
      const response = await fetch(`${service.http.url}/gr2/v1/model`, {
        headers: { authorization: `Bearer ${token}` },
      });
      await response.arrayBuffer();
      return response.status;
    };
    expect(await statusWith(revoked.token)).toBe(200);
    const reloads = [service.reload()];
    await until(() => started === 2); // the run is loading
    writeFileSync(file, `${kept.line}\n`);
    reloads.push(service.reload(), service.reload(), service.reload());
    expect([await statusWith(revoked.token), await statusWith(kept.token)]).toEqual([401, 200]);
    expect(log).toEqual([]);
    open();
    await Promise.all(reloads);
    expect([started, log.length]).toEqual([3, 2]);

    writeFileSync(file, "nonsense\n");
    await service.reload();
    expect(log.filter((line) => line.includes("failed"))).toEqual([
      expect.stringContaining("tokens or certificates stay"),
    ]);
    expect([started, await statusWith(kept.token)]).toEqual([4, 200]); // the run is read all the same
    await service.stop();
  });

  it("replaces tokens although a certificate is bad", () => {
    const file = join(folder, "apart");
    const [before, after] = [newToken("before"), newToken("after")];
    writeFileSync(file, before.line);
    const settings = securitySchema.parse({ tokens: file });
    const guard = openSecurity(settings);
    writeFileSync(file, after.line);
    Object.assign(settings.tls, { cert: join(folder, "none.pem"), key: join(folder, "none.key") });
    expect(() => guard.reload()).toThrow("cannot be read");
    expect(guard.authenticate(`Bearer ${after.token}`).name).toBe("after");
    expect(() => guard.authenticate(`Bearer ${before.token}`)).toThrow("A valid token is required");
  });
});
