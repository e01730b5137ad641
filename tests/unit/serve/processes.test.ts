/** Several processes that are one service: ports, metrics, tokens, registered items, readiness, loss, end. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { repositoryRoot } from "../../../src/core/paths.ts";
import { newToken } from "../../../src/serve/security/tokens.ts";
import { makeRuns } from "../../service-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-processes-"));
const tokens = join(folder, "tokens");
const [kept, revoked] = [newToken("kept"), newToken("revoked")];
let root = "";
let service: ChildProcess;
let out = "";
let url = "";

/** Twice as long as a slow machine takes. */
const patienceMs = 90_000;
const until = async (what: string, condition: () => boolean | Promise<boolean>): Promise<void> => {
  const begun = performance.now();
  while (!(await condition())) {
    if (performance.now() - begun > patienceMs) throw new Error(`never ${what}; it printed:\n${out}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};
/** Each over a connection of its own, so that processes take turns. */
const call = (path: string, body?: unknown, { token } = kept): Promise<Response> =>
  fetch(url + path, {
    headers: { connection: "close", authorization: `Bearer ${token}`, "content-type": "application/json" },
    ...(body === undefined ? {} : { method: "POST", body: JSON.stringify(body) }),
  });
const ask = (id: string, from = kept) =>
  call(
    "/gr2/v1/rerank",
    {
      candidates: [
        { id: "a", item_id: id },
        { id: "b", item_id: "i2" },
      ],
      deadline_ms: 20_000,
    },
    from,
  );
const statuses = async (calls: readonly Promise<Response>[]): Promise<number[]> => {
  const answers = await Promise.all(calls);
  await Promise.all(answers.map((answer) => answer.text()));
  return answers.map((answer) => answer.status);
};
const times = <T>(n: number, make: () => T): T[] => Array.from({ length: n }, make);
const pids = (): string[] => [...new Set([...out.matchAll(/answered by (\d+)/g)].map(([, pid]) => pid as string))];
const metric = async (name: string): Promise<number> =>
  Number(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, "m").exec(await (await call("/metrics")).text())?.[1]);

beforeAll(async () => {
  root = await makeRuns(folder, { first: [] });
  writeFileSync(tokens, `${kept.line}\n${revoked.line}\n`);
  service = spawn(
    process.execPath,
    ["--import", "tsx", join(repositoryRoot, "tests/unit/serve/processes-child.ts"), root, "first", tokens],
    { stdio: ["ignore", "pipe", "pipe"], cwd: repositoryRoot },
  );
  for (const stream of [service.stdout, service.stderr]) stream?.on("data", (data) => (out += data));
  await until("ready", () => /ready at (\S+) and (\S+)\n/.test(out));
  url = /ready at (\S+) /.exec(out)?.[1] as string;
}, 2 * patienceMs);
afterAll(() => {
  service.kill("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});

it("share a port, take turns, and have one page of metrics", async () => {
  expect(await statuses(times(8, () => ask("i1")))).toEqual(times(8, () => 200));
  await until("two processes answered", () => pids().length === 2);
  expect(await metric("gr2_workers")).toBe(2);
  const answers = [...(await (await call("/metrics")).text()).matchAll(/^gr2_answers_total\{.*\} (\d+)$/gm)];
  expect(answers.reduce((sum, [, n]) => sum + Number(n), 0)).toBe(8);
  expect(await metric("gr2_model_info")).toBe(1);
});

it("know what was registered with any of them, at once, and its later text", async () => {
  expect(await statuses(times(4, () => ask("n1")))).toEqual(times(4, () => 400));
  for (const text of ["A film from next year", "Film number 7"]) {
    const item = { items: [{ item_id: "n1", text }] };
    expect(await statuses([call("/v1/items", item)])).toEqual([200]);
    expect(await statuses(times(8, () => ask("n1")))).toEqual(times(8, () => 200));
    const scores = await Promise.all(
      times(6, async () => JSON.stringify(((await (await ask("n1")).json()) as { ranking: unknown }).ranking)),
    );
    expect(new Set(scores).size).toBe(1);
  }
});

it("forget a revoked token together", async () => {
  expect(await statuses(times(4, () => ask("i1", revoked)))).toEqual(times(4, () => 200));
  writeFileSync(tokens, `${kept.line}\n`);
  service.kill("SIGHUP");
  await until("refused", async () => (await statuses([ask("i1", revoked)]))[0] === 401);
  await new Promise((resolve) => setTimeout(resolve, 200));
  expect(await statuses(times(8, () => ask("i1", revoked)))).toEqual(times(8, () => 401));
  expect(await statuses(times(4, () => ask("i1")))).toEqual(times(4, () => 200));
});

it("are not ready while one of them has no model", async () => {
  const [, sick] = pids();
  const ready = async () => new Set(await statuses(times(6, () => call("/readyz"))));
  expect(await ready()).toEqual(new Set([200]));
  writeFileSync(join(root, `sick-${sick}`), "");
  await until("not ready", async () => [...(await ready())].join() === "503");
  rmSync(join(root, `sick-${sick}`));
  await until("ready again", async () => [...(await ready())].join() === "200");
});

it(
  "replace a lost one, which takes no requests before it can answer them",
  async () => {
    const [first] = pids();
    process.kill(Number(first), "SIGKILL");
    await until("told", () => /process \d is lost/.test(out)); // a worker was lost before
    const seen: number[] = [];
    await until("there again", async () => {
      seen.push(...(await statuses(times(4, () => ask("i1")))));
      return (await metric("gr2_workers")) === 2 && pids().length === 3;
    });
    expect(new Set(seen)).toEqual(new Set([200]));
  },
  patienceMs,
);

it("end together, with 0, when told to", async () => {
  const ended = new Promise((resolve) => service.on("exit", resolve));
  service.kill("SIGTERM");
  expect(await ended).toBe(0);
  for (const pid of pids()) expect(() => process.kill(Number(pid), 0)).toThrow();
});
