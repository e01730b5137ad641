/**
 * The bridge to an embedded Python: finds it, checks it, starts it through pythonia and stops it. pythonia carries a
 * handful of control calls (JSON string in, JSON string out); tensors and training go over gRPC.
 *
 * Pitfalls handled here: pythonia spawns Python at import time and reads PYTHON_BIN then; a missing binary raises an
 * uncaught event; a call pending when Python dies never settles; its Python inherits the terminal.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { EnvironmentError, WorkerError } from "../core/errors.ts";
import { repositoryRoot } from "../core/paths.ts";

/** Oldest Python the worker runs on. */
const minPython: readonly [number, number] = [3, 11];

/** Modules the worker cannot start without: import names and pip names. */
const requiredModules: Readonly<Record<string, string>> = {
  torch: "torch",
  transformers: "transformers",
  tokenizers: "tokenizers",
  safetensors: "safetensors",
  sentence_transformers: "sentence-transformers",
  numpy: "numpy",
  grpc: "grpcio",
  grpc_health: "grpcio-health-checking",
  google: "protobuf",
  psutil: "psutil",
};

export interface PythonFacts {
  /** Absolute path, or a name on PATH. */
  readonly bin: string;
  readonly version: string;
}

export const defaultPythonBin = (): string => join(repositoryRoot, ".venv", "bin", "python");

const probe = `
import importlib.util, json, sys
names = json.loads(sys.argv[1])
print(json.dumps({"version": list(sys.version_info[:3]), "missing": [n for n in names if importlib.util.find_spec(n) is None]}))
`;

/**
 * Checks that the worker can start: Python exists, is new enough and has the packages. ~50 ms, imports none of them.
 * Throws EnvironmentError naming what is missing.
 */
export function checkPython(bin: string, modules: Readonly<Record<string, string>> = requiredModules): PythonFacts {
  const advice = "Run `make setup`, or point runtime.python at a Python with the worker's packages.";
  if (bin.includes("/") && !existsSync(bin)) throw new EnvironmentError(`no Python at ${bin}`, { advice });
  const args = ["-c", probe, JSON.stringify(Object.keys(modules))];
  const result = spawnSync(bin, args, { encoding: "utf8", timeout: 60_000 });
  if (result.error || result.status !== 0) {
    const reason = result.error ? result.error.message : lastLines(result.stderr, 1) || `exit status ${result.status}`;
    throw new EnvironmentError(`cannot run Python (${bin}): ${reason}`, { advice, cause: result.error });
  }
  const facts = JSON.parse(result.stdout) as { version: number[]; missing: string[] };
  const version = facts.version.join(".");
  const [major = 0, minor = 0] = facts.version;
  if (major < minPython[0] || (major === minPython[0] && minor < minPython[1])) {
    throw new EnvironmentError(
      `Python ${version} (${bin}) is too old: the worker needs ${minPython.join(".")} or newer`,
      {
        advice,
      },
    );
  }
  if (facts.missing.length > 0) {
    const names = facts.missing.map((m) => modules[m] ?? m);
    throw new EnvironmentError(
      `the Python package${names.length > 1 ? "s" : ""} ${names.join(", ")} ${names.length > 1 ? "are" : "is"} missing from ${bin}`,
      { advice: "Run `make setup`." },
    );
  }
  return { bin, version };
}

/** Environment of our Python processes: this one, plus where the worker's package is. */
export const pythonEnvironment = (): NodeJS.ProcessEnv => ({
  ...process.env,
  PYTHONPATH: join(repositoryRoot, "python_worker"),
  PYTHONUNBUFFERED: "1",
});

/** The last non-empty lines of a text, joined by newlines. */
function lastLines(text: string, n: number): string {
  return text
    .split("\n")
    .filter((line) => line.trim() !== "")
    .slice(-n)
    .join("\n");
}

/** The part of pythonia's exports used here. */
interface Pythonia {
  python: ((module: string) => Promise<Record<string, (json: string) => Promise<string>>>) & { exit(): void };
  com: { proc: import("node:child_process").ChildProcess | null };
}

export interface PythonProcess {
  readonly pid: number;
  /** How the process ended, once it has. */
  ended(): { code: number | null; signal: NodeJS.Signals | null } | undefined;
  /** Resolves when the process has ended or the time is up; true if it has ended. */
  waitForEnd(ms: number): Promise<boolean>;
  /** Calls `module.function(json)` in Python, which must return a JSON string. Rejects if Python dies meanwhile. */
  call(module: string, fn: string, argument: unknown): Promise<unknown>;
  /** The last lines of Python's output. */
  lastOutput(n?: number): string;
  /** Ends Python: by request, then by SIGKILL. Never throws. */
  exit(graceMs?: number): Promise<void>;
  /** SIGKILL, synchronously; for process "exit" handlers. */
  kill(): void;
}

let running: PythonProcess | undefined;

/**
 * Starts Python through pythonia. One at a time per process (pythonia is a singleton).
 * `logPath`: file that receives Python's output.
 */
export async function startPython(options: { bin: string; logPath: string }): Promise<PythonProcess> {
  if (running && !running.ended()) {
    throw new WorkerError("this process already has an embedded Python", { retryable: false });
  }
  process.env.PYTHON_BIN = join(repositoryRoot, "scripts", "worker-python.sh");
  process.env.GR2_PYTHON = options.bin;
  process.env.GR2_WORKER_LOG = options.logPath;
  process.env.PYTHONPATH = join(repositoryRoot, "python_worker");
  process.env.PYTHONUNBUFFERED = "1";
  process.env.REQ_TIMEOUT = "600000"; // importing torch on a cold disk takes minutes
  // CommonJS: only some loaders find the named exports, all find `default`.
  const loaded = (await import("pythonia")) as unknown as Pythonia & { readonly default?: Pythonia };
  const { python, com } = loaded.default ?? loaded;
  if (!com.proc) void python("json").catch(() => {}); // the module was loaded before: this restarts the process
  const proc = com.proc;
  if (!proc?.pid) throw new EnvironmentError(`cannot start Python (${options.bin})`, { advice: "Run `make setup`." });
  const pid = proc.pid;

  let end: { code: number | null; signal: NodeJS.Signals | null } | undefined;
  const gone = new Promise<void>((done) => {
    proc.on("error", () => {}); // writes to a dead process; its end is reported by "exit"
    proc.on("exit", (code, signal) => {
      end = { code, signal };
      done();
    });
  });
  const kill = () => {
    if (end) return;
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // already gone
    }
  };
  process.once("exit", kill);

  const waitForEnd = async (ms: number): Promise<boolean> => {
    let timer: NodeJS.Timeout | undefined;
    await Promise.race([
      gone,
      new Promise((done) => {
        timer = setTimeout(done, ms);
      }),
    ]);
    clearTimeout(timer);
    return end !== undefined;
  };

  const self: PythonProcess = {
    pid,
    ended: () => end,
    waitForEnd,
    lastOutput: (n = 5) => {
      try {
        return lastLines(readFileSync(options.logPath, "utf8"), n);
      } catch {
        return "";
      }
    },
    call: async (module, fn, argument) => {
      const answer = (async () => {
        const target = (await python(module))[fn];
        if (!target) throw new WorkerError(`Python module ${module} has no function ${fn}`, { retryable: false });
        return JSON.parse(await target(JSON.stringify(argument))) as unknown;
      })();
      const died = gone.then(() => {
        throw new WorkerError(`Python ended (${describeEnd(end)}) during ${module}.${fn}`, { retryable: false });
      });
      died.catch(() => {});
      answer.catch(() => {});
      return Promise.race([answer, died]);
    },
    exit: async (graceMs = 2_000) => {
      if (!end) {
        try {
          python.exit();
        } catch {
          // the channel was closed already
        }
        if (!(await waitForEnd(graceMs))) {
          kill();
          await waitForEnd(2_000);
        }
      } else {
        try {
          python.exit(); // stops pythonia's timer, which would keep Node alive
        } catch {
          // nothing left to stop
        }
      }
      process.removeListener("exit", kill);
      if (running === self) running = undefined;
    },
    kill,
  };
  running = self;
  return self;
}

let shared: { readonly process: Promise<PythonProcess>; holders: number } | undefined;

/**
 * The embedded Python, started if not running: the worker and the user's modules share it. It ends when every holder
 * has called `exit`. The first caller decides which Python it is and where it logs.
 */
export async function sharePython(options: { bin: string; logPath: string }): Promise<PythonProcess> {
  const own = shared !== undefined && !(await shared.process.catch(() => undefined))?.ended() ? shared : undefined;
  const held = own ?? { process: startPython(options), holders: 0 };
  shared = held;
  held.holders++;
  const python = await held.process;
  let left = false;
  return {
    ...python,
    exit: async (graceMs) => {
      if (left) return;
      left = true;
      held.holders--;
      if (held.holders > 0) return;
      if (shared === held) shared = undefined;
      await python.exit(graceMs);
    },
  };
}

/** "killed by SIGKILL, ...", "exit status 3". */
export function describeEnd(end: { code: number | null; signal: NodeJS.Signals | null } | undefined): string {
  if (!end) return "still running";
  if (end.signal === "SIGKILL") return "killed by SIGKILL, often because memory ran out";
  if (end.signal) return `killed by ${end.signal}`;
  return `exit status ${end.code}`;
}
