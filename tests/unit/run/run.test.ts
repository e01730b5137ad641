import { spawnSync } from "node:child_process";
import { appendFileSync, existsSync, mkdtempSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, it } from "vitest";
import { InterruptedError } from "../../../src/core/errors.ts";
import { codeFiles, codeHash } from "../../../src/run/code-hash.ts";
import { fileError, writeAtomic } from "../../../src/run/files.ts";
import { readManifest } from "../../../src/run/manifest.ts";
import { isAlive, readStartTime } from "../../../src/run/processes.ts";
import { RecordLog, readRecords } from "../../../src/run/record-log.ts";
import { Run, type RunOptions, type StageSpec } from "../../../src/run/run.ts";
import { listRuns, RunFolder } from "../../../src/run/run-folder.ts";
import type { StageRecorder } from "../../../src/run/stage.ts";
import { TelemetryBus, type TelemetryMessage } from "../../../src/worker/telemetry.ts";

let root: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "gr2-run-"));
});

const stages = ["one", "two"];
const open = (more: Partial<RunOptions> = {}) =>
  Run.open({ root, name: "r", configYaml: "a: 1\n", configHash: "c0", seed: 1, stages, ...more });

const spec = (name: string, run: StageSpec["run"], more: Partial<StageSpec> = {}): StageSpec => ({
  name,
  config: { x: 1 },
  code: ["src/core/hash.ts"],
  inputs: {},
  run,
  ...more,
});

const write = (text: string) => async (c: StageRecorder) => writeAtomic(join(c.dir, "out.txt"), text);

describe("stages of a run", () => {
  async function twice(second: (run: Run, calls: string[]) => Promise<void>, more: Partial<RunOptions> = {}) {
    const calls: string[] = [];
    const pipeline = async (run: Run, config: unknown = { x: 1 }) => {
      const one = await run.stage(
        spec(
          "one",
          async (c) => {
            calls.push("one");
            await write("1")(c);
          },
          { config },
        ),
      );
      await run.stage(
        spec(
          "two",
          async (c) => {
            calls.push("two");
            await write("2")(c);
          },
          { inputs: { one: one.key } },
        ),
      );
    };
    const first = await open();
    await pipeline(first);
    await first.close("finished");
    expect(calls.splice(0)).toEqual(["one", "two"]);
    const again = await open(more);
    await second(again, calls);
    await pipeline(again, (again as { config?: unknown }).config);
    await again.close("finished");
    return { calls, again, pipeline };
  }

  it("are not run again when nothing changed", async () => {
    const { calls } = await twice(async () => {});
    expect(calls).toEqual([]);
    expect(readManifest(join(root, "r"))?.stages.two).toMatchObject({ state: "finished", cached: true });
  });

  it("run again, with those that depend on them, when their config changes", async () => {
    const { calls } = await twice(async (run) => void Object.assign(run, { config: { x: 2 } }));
    expect(calls).toEqual(["one", "two"]);
  });

  it("run again when an output is damaged or missing, even with the same size", async () => {
    const damaged = await twice(async (run) => writeFileSync(run.folder.file("stages", "one", "out.txt"), "X"));
    expect(damaged.calls).toEqual(["one"]);
    expect(readFileSync(join(root, "r/stages/one/out.txt"), "utf8")).toBe("1");
  });

  it("run again from the stage asked for", async () => {
    expect((await twice(async () => {}, { from: "two" })).calls).toEqual(["two"]);
  });

  it("all run again when fresh", async () => {
    expect((await twice(async () => {}, { fresh: true })).calls).toEqual(["one", "two"]);
  });

  it("go on from the cursor after a crash, without repeated or lost records", async () => {
    let crashAt = 5;
    const loop: StageSpec["run"] = async (c) => {
      const from = c.cursor.read<{ step: number }>()?.step ?? 0;
      for (let step = from + 1; step <= 8; step++) {
        c.metrics(step, { loss: 1 / step });
        c.rollout(step, { text: `t${step}` });
        if (step % 2 === 0) {
          writeAtomic(c.work("state.txt"), String(step));
          c.cursor.write({ step });
        }
        if (step === crashAt) throw new Error("crash");
      }
      await write("done")(c);
    };
    const run = await open();
    await run.stage(spec("one", async (c) => c.metrics(1, { a: 1 })));
    await expect(run.stage(spec("two", loop))).rejects.toThrow("crash");
    await run.close("failed", "crash");
    expect(readManifest(join(root, "r"))?.stages.two?.state).toBe("failed");
    appendFileSync(join(root, "r/metrics.jsonl"), '{"seq":99,"stage":"two","st'); // torn by kill -9

    crashAt = -1;
    const events: string[] = [];
    const bus = new TelemetryBus("r");
    bus.on((m) => m.kind === "stage" && events.push(`${m.stage} ${m.state}`));
    const again = await open({ bus });
    await again.stage(spec("one", async (c) => c.metrics(1, { a: 1 })));
    const result = await again.stage(spec("two", loop));
    await again.close("finished");
    expect(events).toEqual(["one cached", "two resumed", "two finished"]);
    expect(existsSync(join(result.dir, "work"))).toBe(false);
    const records = [...readRecords(join(root, "r/metrics.jsonl"))];
    expect(records.map((r) => `${r.stage}${r.step}`)).toEqual([
      "one1",
      ...[1, 2, 3, 4, 5, 6, 7, 8].map((s) => `two${s}`),
    ]);
    expect(records.map((r) => r.seq)).toEqual([...records.map((r) => r.seq)].sort((a, b) => a - b));
    expect([...readRecords(join(root, "r/rollouts.jsonl"))].map((r) => r.step)).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it("throw away an unfinished attempt made with other settings", async () => {
    const half: StageSpec["run"] = async (c) => {
      c.metrics(1, { old: 1 });
      c.cursor.write({ step: 1 });
      throw new Error("crash");
    };
    const run = await open();
    await expect(run.stage(spec("one", half))).rejects.toThrow("crash");
    await run.close("failed");
    const again = await open();
    let cursor: unknown = "unset";
    const check: StageSpec["run"] = async (c) => {
      cursor = c.cursor.read();
    };
    await again.stage(spec("one", check, { config: { x: 2 } }));
    await again.close("finished");
    expect(cursor).toBeUndefined();
    expect([...readRecords(join(root, "r/metrics.jsonl"))]).toEqual([]);
  });

  it("stop when interrupted, and say so in the manifest", async () => {
    const controller = new AbortController();
    const run = await open({ signal: controller.signal });
    const stage = run.stage(
      spec("one", async (c) => {
        controller.abort();
        c.progress("", 1, 2);
      }),
    );
    await expect(stage).rejects.toBeInstanceOf(InterruptedError);
    await run.close("interrupted");
    expect(readManifest(join(root, "r"))).toMatchObject({
      state: "interrupted",
      stages: { one: { state: "interrupted" } },
    });
  });

  it("refuse a stage name that does not exist", async () => {
    await expect(open({ from: "three" })).rejects.toThrow("--from three: there is no such stage");
    await expect(open({ from: "two", until: "one" })).rejects.toThrow("comes after");
  });

  it("measure time and peak memory", async () => {
    const run = await open();
    let held: Buffer | undefined;
    const result = await run.stage(
      spec("one", async () => {
        held = Buffer.alloc(64 * 2 ** 20, 1);
      }),
    );
    await run.close("finished");
    expect(held?.length).toBe(64 * 2 ** 20);
    expect(result.peakBytes).toBeGreaterThan(64 * 2 ** 20);
    expect(result.seconds).toBeGreaterThan(0);
  });
});

describe("run folder", () => {
  it("belongs to one process at a time", async () => {
    const folder = RunFolder.open(root, "r");
    expect(() => RunFolder.open(root, "r")).toThrow(/in use by process \d+/);
    expect(RunFolder.view(root, "r").holder()?.pid).toBe(process.pid);
    folder.release();
    RunFolder.open(root, "r").release();
  });

  it("is taken over from a dead process, also when its pid was given to another one", () => {
    const lock = (pid: number, startTime: string | undefined) => {
      RunFolder.open(root, "r").release();
      writeFileSync(join(root, "r/lock.json"), JSON.stringify({ pid, startTime, host: hostname(), since: "x" }));
      RunFolder.open(root, "r").release();
    };
    const dead = spawnSync("true").pid;
    lock(dead, undefined);
    lock(process.pid, "1");
    writeFileSync(join(root, "r/lock.json"), '{"pid": 1'); // torn
    RunFolder.open(root, "r").release();
  });

  it("is not taken over from another machine", () => {
    RunFolder.open(root, "r").release();
    writeFileSync(join(root, "r/lock.json"), JSON.stringify({ pid: 1, host: "elsewhere", since: "x" }));
    expect(() => RunFolder.open(root, "r")).toThrow("on elsewhere");
  });

  it("refuses names that are paths, and lists what is there", () => {
    for (const name of ["..", "a/b", "", ".hidden"])
      expect(() => RunFolder.open(root, name)).toThrow("is not a valid run name");
    RunFolder.open(root, "older").release();
    RunFolder.open(root, "newer").release();
    utimesSync(join(root, "older"), 1, 1);
    expect(listRuns(root)).toEqual(["newer", "older"]);
    expect(() => RunFolder.view(root, "none")).toThrow('no run "none"');
  });

  it("says what to do when the disk is full or forbidden", () => {
    const full = fileError("write", "/runs/x", Object.assign(new Error("no"), { code: "ENOSPC" }));
    expect(full).toMatchObject({ code: "RUN", message: "cannot write /runs/x: no space left on the disk" });
    expect((full as { advice: string }).advice).toContain("free some space");
    writeFileSync(join(root, "file"), "");
    expect(() => RunFolder.open(join(root, "file"), "r")).toThrow(/cannot create the folder/);
  });

  it.runIf(existsSync("/dev/full"))("reports a disk that fills up while appending", () => {
    const log = new RecordLog("/dev/full");
    expect(() => log.append({ stage: "s", step: 1 })).toThrow("no space left on the disk");
  });
});

describe("record log", () => {
  it("numbers go on after a reopen, and dropping a stage keeps the others", () => {
    const path = join(root, "m.jsonl");
    const a = new RecordLog(path);
    for (const stage of ["x", "y", "x"]) a.append({ stage, step: 1 });
    a.close();
    const b = new RecordLog(path);
    b.dropStage("x", 1);
    expect(b.append({ stage: "x", step: 2 }).seq).toBe(4);
    b.close();
    expect([...readRecords(path)].map((r) => r.seq)).toEqual([1, 2, 4]);
  });

  it("reads lines longer than its buffer", () => {
    const log = new RecordLog(join(root, "m.jsonl"));
    log.append({ stage: "x", step: 1, text: "é".repeat(2 ** 20) } as never);
    log.append({ stage: "x", step: 2, text: "é".repeat(2 ** 20) } as never);
    log.close();
    expect(new RecordLog(log.path).lastSeq).toBe(2);
    expect([...readRecords(log.path)].length).toBe(2);
  });

  it("says which line is damaged", () => {
    writeFileSync(join(root, "m.jsonl"), '{"seq":1}\nnonsense\n{"seq":3}\n');
    expect(() => [...readRecords(join(root, "m.jsonl"))]).toThrow("has a line that is not JSON: nonsense");
  });
});

describe("code hash and processes", () => {
  it("follows the imports of values, in both languages, and nothing else", () => {
    const write = (f: string, s: string) => writeAtomic(join(root, f), s);
    write(
      "src/x.ts",
      'import { y } from "./y.ts";\nimport type { T } from "./types.ts";\nimport { type U } from "./types.ts";',
    );
    write("src/y.ts", 'export * from "./deep/z.ts";\nimport g from "./generated/g.ts";\n// from "./none.ts"');
    write("src/deep/z.ts", 'const a = await import("../late.ts");\n/* import "./none.ts" */');
    write("src/late.ts", "");
    write("src/types.ts", "");
    write("src/worker/client.ts", "");
    const py = "python_worker/gr2_worker";
    write(`${py}/rpc/wire.py`, "");
    write(
      `${py}/items/embed.py`,
      "from gr2_worker.items import vectors\nfrom gr2_worker.errors import (\n    A,\n    B,\n)\nimport numpy",
    );
    write(`${py}/items/vectors.py`, "if TYPE_CHECKING:\n    from gr2_worker.only_types import T\nx = 1");
    write(`${py}/only_types.py`, "");
    write(`${py}/errors.py`, "");
    expect(codeFiles(["src/x.ts"], [], root)).toEqual(["src/deep/z.ts", "src/late.ts", "src/x.ts", "src/y.ts"]);
    expect(codeFiles(["src/late.ts"], ["embed"], root)).toEqual([
      `${py}/errors.py`,
      `${py}/items/embed.py`,
      `${py}/items/vectors.py`,
      `${py}/rpc/wire.py`,
      "src/late.ts",
      "src/worker/client.ts",
    ]);
    expect(() => codeFiles(["src/none.ts"], [], root)).toThrow("src/none.ts does not exist");
    write("src/y.ts", 'import "./gone.ts";');
    expect(() => codeFiles(["src/x.ts"], [], root)).toThrow("src/gone.ts does not exist");
  });

  it("changes with the contents of any of these files", () => {
    const write = (f: string, s: string) => writeAtomic(join(root, f), s);
    write("a.ts", 'import "./b.ts";');
    write("b.ts", "1");
    const before = codeHash(["a.ts"], [], root);
    expect(codeHash(["a.ts"], [], root)).toBe(before);
    expect(codeHash(["a.ts", "b.ts"], [], root)).not.toBe(codeHash(["b.ts"], [], root));
  });

  it("knows a process by pid and start time", () => {
    expect(isAlive(process.pid, readStartTime(process.pid))).toBe(true);
    expect(isAlive(spawnSync("true").pid, undefined)).toBe(false);
  });
});

describe("telemetry bus", () => {
  it("numbers events and survives a listener that throws", () => {
    const bus = new TelemetryBus("r");
    const seen: TelemetryMessage[] = [];
    bus.on(() => {
      throw new Error("bad listener");
    });
    bus.on((m) => seen.push(m));
    bus.emit({ kind: "log", level: "info", text: "a" });
    bus.emit({ kind: "log", level: "info", text: "b" });
    expect(seen.map((m) => m.seq)).toEqual([1, 2]);
  });
});
