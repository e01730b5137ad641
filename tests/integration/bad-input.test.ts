/** What a person can get wrong, through the command line: the right exit code, one clear message, no stack trace. */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { hostname } from "node:os";
import { basename, join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { type ErrorCode, exitCodes } from "../../src/core/errors.ts";
import { repositoryRoot } from "../../src/core/paths.ts";
import { readStartTime } from "../../src/run/processes.ts";
import {
  type Ended,
  gr2,
  miniLines,
  miniRecipe,
  pipelineArgs,
  readRunManifest,
  workplace,
  writeMiniData,
} from "./mini.ts";

const w = workplace();
const cleanUp: (() => void)[] = [() => rmSync(w.folder, { recursive: true, force: true })];
afterAll(() => {
  for (const step of cleanUp.reverse()) step();
});

function expectFault(e: Ended, code: ErrorCode, message: RegExp): void {
  expect(e.stderr, e.stdout).toMatch(message);
  expect(e.stderr).toMatch(/^error: /);
  expect(e.stderr).not.toMatch(/^\s+at |Traceback|bug in|undefined|\[object/m);
  expect(e.stderr.trim().split("\n").length, e.stderr).toBeLessThanOrEqual(4);
  expect(e.code).toBe(exitCodes[code]);
}

const file = (name: string, text: string | Buffer): string => {
  const path = join(w.folder, name);
  writeFileSync(path, text);
  return path;
};
/** --set for a copy of the data whose lines are changed. */
const dataWith = (name: string, change: (lines: { inter: string[]; item: string[] }) => void): string => {
  const lines = miniLines();
  change(lines);
  return writeMiniData(join(w.folder, name), lines);
};
const untilData = (path: string) => [
  ...pipelineArgs(w, basename(path)),
  "--until",
  "data",
  "--set",
  `data.path=${path}`,
];
const withConfig = (path: string) => ["pipeline", "--config", path, "--root", w.root, "--until", "data"];

interface Case {
  readonly what: string;
  readonly args: () => string[];
  readonly code: ErrorCode;
  readonly message: RegExp;
}

const cases: readonly Case[] = [
  {
    what: "a config file that is not there",
    args: () => withConfig("/nowhere/x.yaml"),
    code: "CONFIG",
    message: /^error: \/nowhere\/x\.yaml: no such config file\n.*configs\//,
  },
  {
    what: "a config file that is no YAML",
    args: () => withConfig(file("broken.yaml", "rl: {steps: 3\nseed: [")),
    code: "CONFIG",
    message: /broken\.yaml: not valid YAML: .*line \d/,
  },
  {
    what: "a config file that holds a list",
    args: () => withConfig(file("list.yaml", "- 1\n")),
    code: "CONFIG",
    message: /list\.yaml: expected a mapping/,
  },
  {
    what: "an unknown setting",
    args: () => withConfig(file("key.yaml", stringify({ ...miniRecipe("/x"), rl: { step: 3 } }))),
    code: "CONFIG",
    message: /unknown setting rl\.step; did you mean rl\.steps\?/,
  },
  {
    what: "a setting of the wrong type",
    args: () => [...pipelineArgs(w, "type"), "--set", "rl.steps=many"],
    code: "CONFIG",
    message: /rl\.steps = "many": /,
  },
  {
    what: "shares that do not add up",
    args: () => [...pipelineArgs(w, "shares"), "--set", "data.split.test=0.5"],
    code: "CONFIG",
    message: /data\.split: .* must add up to 1/,
  },
  {
    what: "a stage that does not exist",
    args: () => pipelineArgs(w, "stage", "--until", "training"),
    code: "RUN",
    message: /--until training: there is no such stage\n.*data, candidates, embed/,
  },
  {
    what: "a run name that leaves the folder of runs",
    args: () => pipelineArgs(w, "../outside"),
    code: "RUN",
    message: /"\.\.\/outside" is not a valid run name\n/,
  },
  {
    what: "a data folder that is not there",
    args: () => untilData("/nowhere/data"),
    code: "DATA",
    message: /data\.path = \/nowhere\/data: there is no such file or folder/,
  },
  {
    what: "a data folder without interactions",
    args: () => {
      mkdirSync(join(w.folder, "empty"), { recursive: true });
      return untilData(join(w.folder, "empty"));
    },
    code: "DATA",
    message: /empty has no file with the interactions; looked for \*\.inter/,
  },
  {
    what: "an empty interaction file",
    args: () => {
      const path = dataWith("none", () => {});
      writeFileSync(join(path, "toy.inter"), "");
      return untilData(path);
    },
    code: "DATA",
    message: /toy\.inter is empty/,
  },
  {
    what: "an interaction file of random bytes",
    args: () => {
      const path = dataWith("garbage", () => {});
      const bytes = Buffer.from(Array.from({ length: 4096 }, (_, i) => (i * 7919 + (i >> 3)) % 256));
      writeFileSync(join(path, "toy.inter"), bytes);
      return untilData(path);
    },
    code: "DATA",
    message: /toy\.inter/,
  },
  {
    what: "a header without the item column",
    args: () =>
      untilData(
        dataWith("header", (l) => {
          l.inter[0] = "user_id:token\tmovie:token\trating:float\ttimestamp:float";
        }),
      ),
    code: "DATA",
    message: /toy\.inter:1 has no column "item_id"; it has "user_id", "movie"/,
  },
  {
    what: "too many malformed rows",
    args: () =>
      untilData(
        dataWith("malformed", (l) => {
          for (let k = 7; k < 107; k++) l.inter[k] = "u1\t101";
        }),
      ),
    code: "DATA",
    message:
      /100 of 2400 rows are malformed \(4\.17 %, allowed 1\.00 %\); the first is .*toy\.inter:8: .*\n.*raise data\.maxBadShare/,
  },
  {
    what: "a damaged item file",
    args: () =>
      untilData(
        dataWith("items", (l) => {
          for (let k = 1; k < 30; k++) l.item[k] = "only one cell";
        }),
      ),
    code: "DATA",
    message: /toy\.item:2: 1 columns, expected 4/,
  },
  {
    what: "a model folder without a tokenizer",
    args: () => {
      const model = join(w.folder, "mute-model");
      mkdirSync(model);
      writeFileSync(join(model, "config.json"), JSON.stringify({ model_type: "qwen3" }));
      writeFileSync(join(model, "model.safetensors"), "");
      return [...pipelineArgs(w, "mute"), "--set", "model.source=pretrained", "--set", `model.path=${model}`];
    },
    code: "CONFIG",
    message: /mute-model: the folder contains no tokenizer \(no tokenizer\.json/,
  },
  {
    what: "no Python",
    args: () => [...pipelineArgs(w, "python"), "--until", "sid", "--set", "runtime.python=/nowhere/python"],
    code: "ENVIRONMENT",
    message: /no Python at "?\/nowhere\/python"?.*\n.*make setup/i,
  },
  {
    what: "a Python without the packages",
    args: () => [...pipelineArgs(w, "packages"), "--until", "sid", "--set", `runtime.python=${bareVenv()}`],
    code: "ENVIRONMENT",
    message: /the Python packages torch, .* are missing from .*\n.*make setup/,
  },
];

/** A Python that finds nothing but its standard library. */
function bareVenv(): string {
  const folder = join(w.folder, "bare");
  execFileSync(join(repositoryRoot, ".venv/bin/python"), ["-m", "venv", "--without-pip", folder]);
  return join(folder, "bin/python");
}

describe("bad input", { timeout: 600_000 }, () => {
  it.each(cases)("$what", async ({ args, code, message }) => {
    expectFault(await gr2(args(), { limitMs: 300_000 }), code, message);
  });
});

describe("bad surroundings", { timeout: 600_000 }, () => {
  it("quarantines a few malformed rows, counts them, reports items without text, and goes on", async () => {
    const path = dataWith("few", (l) => {
      l.inter[7] = "u1\t101";
      l.inter[9] = "u1\t102\tfive\t880000000";
      for (const k of [3, 4]) l.item[k] = `${99 + k}\t\t\t`;
    });
    const e = await gr2(untilData(path));
    expect(e, e.stderr).toMatchObject({ code: 0, stderr: "" });
    expect(e.stdout).toMatch(/dropped: 2 rows \(malformed\)/);
    expect(e.stdout).toMatch(/2 of 60 items have no text/);
    const lines = readFileSync(join(w.root, "few/stages/data/quarantine.jsonl"), "utf8").trim().split("\n");
    expect(lines.map((l) => JSON.parse(l).line)).toEqual([8, 10]);
  });

  it("notices that the data changed", async () => {
    const path = dataWith("moving", () => {});
    const once = () => gr2(untilData(path));
    await once();
    expect((await once()).stdout).toMatch(/data\s+unchanged/);
    dataWith("moving", (l) => l.inter.splice(100, 1));
    expect((await once()).stdout).toMatch(/data\s+started/);
  });

  it("refuses a run that another process has locked, and takes over a dead one's", async () => {
    const folder = join(w.root, "held");
    mkdirSync(folder, { recursive: true });
    const lock = { pid: process.pid, startTime: readStartTime(process.pid), host: hostname(), since: "today" };
    const args = [...pipelineArgs(w, "held"), "--until", "data"];
    writeFileSync(join(folder, "lock.json"), JSON.stringify(lock));
    expectFault(
      await gr2(args),
      "RUN",
      new RegExp(`"held" is in use by process ${process.pid}, since today\n.*gr2 watch`),
    );
    writeFileSync(join(folder, "lock.json"), JSON.stringify({ ...lock, startTime: "1" }));
    expect((await gr2(args)).code).toBe(0);
  });

  it("names a folder of runs that cannot be written", async () => {
    const path = file("not-a-folder", "");
    expectFault(
      await gr2(["pipeline", "--config", w.config, "--root", path]),
      "RUN",
      /cannot create the folder .*not-a-folder/,
    );
  });

  it("says in one line that a worker's port is taken", async () => {
    const server = createServer();
    const port = await new Promise<number>((done) =>
      server.listen(0, "127.0.0.1", () => done((server.address() as { port: number }).port)),
    );
    const worker = spawn(
      join(repositoryRoot, ".venv/bin/python"),
      ["-m", "gr2_worker", "--address", `127.0.0.1:${port}`],
      {
        env: { ...process.env, PYTHONPATH: join(repositoryRoot, "python_worker") },
        stdio: ["ignore", "ignore", "pipe"],
      },
    );
    let stderr = "";
    worker.stderr.on("data", (d) => {
      stderr += d;
    });
    const code = await new Promise((done) => worker.on("close", done));
    server.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`gr2_worker: cannot listen on 127\\.0\\.0\\.1:${port}: the port is in use`));
    expect(stderr).not.toMatch(/Traceback/);
  });
});

/** A file system of so many kilobytes, or undefined where this user may not mount one. */
function smallDisk(name: string, options: string): string | undefined {
  const path = join(w.folder, name);
  mkdirSync(path);
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", path], { stdio: "ignore" });
  } catch {
    return undefined;
  }
  cleanUp.push(() => execFileSync("umount", ["-l", path]));
  return path;
}

const small = smallDisk("small", "size=120k");
const locked = smallDisk("locked", "size=100k,ro");

describe("disks", { timeout: 600_000 }, () => {
  it.skipIf(!small)("keeps what is finished when the disk is full, and goes on once there is room", async () => {
    const args = ["pipeline", "--config", w.config, "--root", small as string, "--run", "small", "--until", "midtrain"];
    const grow = (size: string) => execFileSync("mount", ["-o", `remount,size=${size}`, small as string]);
    const first = await gr2(args);
    expectFault(first, "RUN", /no space left on the disk\n.*disk is full: free some space/);
    expect(first.stdout).toMatch(/data\s+done/);
    grow("900k");
    const second = await gr2(args);
    expectFault(second, "WORKER", /saveState failed: cannot write .*: No space left on device\n.*Free some space/);
    expect(second.stdout).toMatch(/data\s+unchanged[^#]*sid\s+done/);
    grow("60m");
    const third = await gr2(args);
    expect(third, third.stderr).toMatchObject({ code: 0, stderr: "" });
    expect(third.stdout).toMatch(/sid\s+unchanged/);
    expect(readRunManifest({ ...w, root: small as string }, "small").state).toBe("finished");
  });

  it.skipIf(!locked)("names a read-only file system", async () => {
    const e = await gr2(["pipeline", "--config", w.config, "--root", locked as string]);
    expectFault(e, "RUN", /cannot create the folder .*: the file system is read-only\n.*--root PATH/);
  });
});
