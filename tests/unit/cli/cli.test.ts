import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import {
  checkData,
  checkMemory,
  checkNode,
  judgePython,
  pinnedRequirements,
  renderChecks,
} from "../../../src/cli/doctor.ts";
import { describeError, exitCodeFor } from "../../../src/cli/errors.ts";
import { bar, bytes, columns, duration, number, plain } from "../../../src/cli/format.ts";
import { LiveState } from "../../../src/cli/live-state.ts";
import { main } from "../../../src/cli/program.ts";
import { drawProgress } from "../../../src/cli/progress.ts";
import { showRollouts, showRun, showRuns } from "../../../src/cli/show.ts";
import { screen, watch } from "../../../src/cli/watch.ts";
import { ConfigError, EnvironmentError, InterruptedError } from "../../../src/core/errors.ts";
import { Run } from "../../../src/run/run.ts";
import { TelemetryBus, type TelemetryEvent, type TelemetryMessage } from "../../../src/worker/telemetry.ts";

const esc = String.fromCharCode(27);
const noColour = (text: string) => text.replaceAll(new RegExp(`${esc}\\[[0-9;]*m`, "g"), "");

function sink(isTTY = false) {
  const out = {
    text: "",
    isTTY,
    columns: 100,
    write: (t: string) => {
      out.text += t;
    },
  };
  return out;
}

describe("errors", () => {
  it("are one sentence with advice and the exit code of their family", () => {
    const e = new EnvironmentError("no Python at x", { advice: "Run `make setup`." });
    expect(describeError(e, false)).toBe("error: no Python at x\n       Run `make setup`.");
    expect([e, new ConfigError("c"), new InterruptedError(), new Error("bug")].map(exitCodeFor)).toEqual([
      7, 2, 130, 1,
    ]);
  });

  it("show a stack only when asked for", () => {
    expect(describeError(new TypeError("x is undefined"), false)).toBe(
      "error: x is undefined\n       This is a bug in GR2. Set GR2_DEBUG=1 for the stack trace.",
    );
    expect(describeError(new ConfigError("a", { cause: new Error("root") }), true)).toMatch(
      /at .*cli\.test\.ts.*root/s,
    );
  });
});

describe("command line", () => {
  const run = async (...argv: string[]) => {
    const err = vi.spyOn(process.stderr, "write").mockReturnValue(true);
    try {
      return { code: await main(argv), err: err.mock.calls.map((c) => String(c[0])).join("") };
    } finally {
      err.mockRestore();
    }
  };

  it("refuses what it does not know, with the nearest command", async () => {
    const { code, err } = await run("pipline");
    expect(code).toBe(2);
    expect(err).toContain("Did you mean pipeline");
    expect((await run("rollout", "show", "x", "-n", "0")).code).toBe(2);
  });

  it("names a missing run and a bad setting without a stack trace", async () => {
    const root = mkdtempSync(join(tmpdir(), "gr2-cli-"));
    const missing = await run("run", "show", "nope", "--root", root);
    expect(missing).toMatchObject({ code: 6 });
    expect(missing.err).toContain('no run "nope"');
    const bad = await run("pipeline", "--set", "sid.levls=3", "--root", root);
    expect(bad.code).toBe(2);
    expect(bad.err).toContain("sid.levls; did you mean sid.levels?");
    expect(bad.err).not.toMatch(/\n\s+at /);
    const stage = await run("pipeline", "--from", "nonsense", "--root", root);
    expect(stage).toMatchObject({ code: 6 });
    expect(stage.err).toContain("no such stage");
  });
});

describe("text", () => {
  it("writes times, sizes, numbers, bars and columns", () => {
    expect([0, 9.94, 59.6, 125, 3780, Number.NaN].map(duration)).toEqual([
      "0.0s",
      "9.9s",
      "1m00s",
      "2m05s",
      "1h03m",
      "?",
    ]);
    expect([12, 2048, 3.4 * 2 ** 20].map(bytes)).toEqual(["12 B", "2.0 KB", "3.4 MB"]);
    expect([3, 0.123456, 1e-6].map(number)).toEqual(["3", "0.1235", "1.00e-6"]);
    expect(bar(0.5, 4)).toBe("██░░");
    expect(
      columns([
        ["a", "bb"],
        ["ccc", "d"],
      ]),
    ).toBe("a    bb\nccc   d");
  });

  it("makes untrusted text safe for a terminal", () => {
    expect(plain(`a${esc}[31mred\nb`, 40)).toBe("a [31mred b");
    expect(plain("abcdef", 4)).toBe("abc…");
  });
});

describe("progress", () => {
  const at = (seq: number, time: number, e: TelemetryEvent): TelemetryMessage => ({ seq, time, run: "r", ...e });

  it("estimates the time left from the pace of the current count", () => {
    const state = new LiveState();
    state.apply(at(1, 0, { kind: "stage", stage: "s", state: "started", index: 1, total: 2 }));
    state.apply(at(2, 10, { kind: "progress", stage: "s", done: 10, total: 100 }));
    expect(state.eta()).toBeUndefined();
    state.apply(at(3, 20, { kind: "progress", stage: "s", done: 30, total: 100 }));
    expect(state.eta()).toBe(35); // 20 in 10 s: 70 left take 35 s
    state.apply(at(4, 21, { kind: "progress", stage: "s", done: 1, total: 50 }));
    expect(state.eta()).toBeUndefined(); // another count began
  });

  it("is plain lines without a terminal and a bar on one", () => {
    for (const tty of [false, true]) {
      const bus = new TelemetryBus("r");
      const out = sink(tty);
      const stop = drawProgress(bus, out);
      bus.emit({ kind: "stage", stage: "sid", state: "started", index: 3, total: 10 });
      bus.emit({ kind: "progress", stage: "sid", done: 1, total: 4, note: "fitting" });
      bus.emit({ kind: "log", level: "warn", text: `odd${esc}[2J` });
      bus.emit({ kind: "stage", stage: "sid", state: "finished", index: 3, total: 10, seconds: 7 });
      stop();
      const text = noColour(out.text);
      expect(text).toContain("[ 3/10] sid        done in 7.0s\n");
      expect(text).toContain("warning: odd [2J");
      expect(text.includes("░")).toBe(tty);
      expect(text.includes("\r")).toBe(tty);
      if (!tty) expect(text).toContain("[ 3/10] sid        started\n");
    }
  });
});

describe("run show, rollout show, watch", () => {
  it("show a run while it runs and afterwards", async () => {
    const root = mkdtempSync(join(tmpdir(), "gr2-cli-"));
    const options = { root, name: "r", configYaml: "", configHash: "abc", seed: 3, stages: ["one", "two"] };
    const run = await Run.open(options);
    let go: () => void = () => {};
    const gate = new Promise<void>((done) => {
      go = done;
    });
    await run.stage({ name: "one", config: {}, code: ["src/core/hash.ts"], inputs: {}, run: async () => {} });
    const working = run.stage({
      name: "two",
      config: {},
      code: ["src/core/hash.ts"],
      inputs: {},
      run: async (c) => {
        c.metrics(1, { loss: 2.5 });
        c.rollout(1, { text: `bad${esc}[2Jtext`, reward: 0.25, parse: { kind: "ranking" } });
        await gate;
        c.metrics(2, { loss: 1.5 });
        c.rollout(2, { text: "a sampled answer", reward: 0.75 });
        c.progress("", 5, 10);
      },
    });
    await new Promise((done) => setTimeout(done, 50));
    expect(noColour(showRun("r", { root }))).toMatch(/r {2}running by process \d+/);
    const out = sink();
    const watching = watch({ root, signal: new AbortController().signal }, out);
    await new Promise((done) => setTimeout(done, 500)); // the subscription travels
    go();
    await working;
    await run.close("finished");
    await watching;
    expect(out.text).toContain("one finished");
    expect(out.text).toContain("two finished");
    expect(out.text).toContain("the run finished");

    expect(noColour(showRun("r", { root }))).toMatch(/r {2}finished.*seed 3.*two +finished/s);
    expect(showRuns({ root })).toMatch(/r +finished/);
    const rollouts = noColour(showRollouts("r", { root, n: 5 }));
    expect(rollouts).toContain("#1 two step 1   reward 0.25");
    expect(rollouts).toContain("bad�[2Jtext");
    const left = sink();
    await watch({ root, name: "r", signal: new AbortController().signal }, left);
    expect(left.text).toContain("r is not running; its last state");
  });

  it("draw stages, bars, metrics and a sample", () => {
    const state = new LiveState();
    const apply = (e: TelemetryEvent) => state.apply({ seq: 1, time: 1, run: "r", ...e });
    apply({ kind: "stage", stage: "data", state: "cached", seconds: 2 });
    apply({ kind: "stage", stage: "rl", state: "resumed" });
    apply({ kind: "progress", stage: "rl", done: 3, total: 6 });
    apply({ kind: "metrics", stage: "rl", step: 3, values: { reward: 0.5 } });
    apply({ kind: "sample", stage: "rl", step: 3, text: "<s_a_1>", reward: 1 });
    const text = noColour(screen("r", state, 80));
    for (const part of ["✓ data", "▸ rl", "50%  3/6", "reward 0.5", "sample rl step 3, reward 1", "<s_a_1>"])
      expect(text).toContain(part);
  });

  it("draw where first choices fall, and keep alarms, which evaluations in between do not hide", () => {
    const state = new LiveState();
    const step = (n: number, values: Record<string, number>) => state.saw({ stage: "rl", step: n, values });
    const positions = { first_choice_1: 0.5, first_choice_2: 0.25, first_choice_3: 0 };
    for (let n = 0; n < 5; n++) {
      step(n, { valid_rate: 0.5, groups_kept: 1, ...positions });
      step(n, { validation_ndcg5: 0.4 });
    }
    const last = () => noColour(screen("r", state, 200));
    expect(last()).toContain("! step 5, invalid answers: only 50 % of answers are permutations");
    step(5, { valid_rate: 0.5, groups_kept: 1, ...positions });
    expect(last()).toContain("first choice by position █▅▁, position 1 0.5"); // .25 / .5 of 7 = 3.5, rounded up
    expect(last().match(/! step/g)).toHaveLength(1);
    step(0, { valid_rate: 1 });
    expect(last()).not.toContain("! step");
  });
});

describe("doctor", () => {
  const wanted = pinnedRequirements("# c\ntorch==2.13.0\nnumpy==2.4.6 ; x\npytest==9.2.0\n");
  const good = {
    ok: true,
    python: "3.11.7",
    packages: { torch: "2.13.0+cpu", numpy: "2.4.6" },
    torch: "2.13.0+cpu",
    threads: 2,
    devices: [],
  };

  it("reads pins, and takes a local build for its version", () => {
    expect(wanted).toEqual({ torch: "2.13.0", numpy: "2.4.6", pytest: "9.2.0" });
    expect(judgePython(good, wanted, "py").map((c) => c.state)).toEqual(["ok", "ok", "ok", "ok"]);
  });

  it("blocks on what stops a run and only warns about the rest", () => {
    const missing = judgePython({ ...good, packages: { torch: null, numpy: "2.4.6" } }, wanted, "py");
    expect(missing.find((c) => c.name === "packages")).toMatchObject({
      state: "problem",
      found: "missing: torch",
      advice: "Run `make setup`.",
    });
    const other = judgePython({ ...good, packages: { torch: "2.11.0", numpy: "2.4.6" } }, wanted, "py");
    expect(other.find((c) => c.name === "packages")).toMatchObject({
      state: "warning",
      found: "torch 2.11.0 (pinned 2.13.0)",
    });
    expect(judgePython({ ...good, torch_error: "OSError: libx" }, wanted, "py").at(-1)).toMatchObject({
      state: "problem",
    });
    const noTrees = judgePython({ ...good, lightgbm_error: "OSError: libgomp.so.1" }, wanted, "py");
    expect(noTrees.find((c) => c.name === "LightGBM")).toMatchObject({ state: "problem" });
    expect(judgePython({ ...good, cuda_build: "12.8" }, wanted, "py").at(-1)).toMatchObject({
      name: "device",
      state: "warning",
    });
    expect([checkNode("18.1.0"), checkNode("20.19.0"), checkNode("24.0.0")].map((c) => c.state)).toEqual([
      "problem",
      "ok",
      "ok",
    ]);
    expect(checkMemory(2 * 2 ** 30, 2 ** 30).state).toBe("warning");
    expect(checkData("/nonexistent").state).toBe("warning");
  });

  it("says at the end whether the machine is fit", () => {
    const bad = { name: "Node", state: "problem", found: "18", advice: "Install Node 20.19 or newer." } as const;
    expect(noColour(renderChecks([bad]))).toBe(
      "✗ Node  18\n        → Install Node 20.19 or newer.\n\n1 problem must be fixed first.",
    );
  });
});
