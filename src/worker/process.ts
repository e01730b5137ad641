/**
 * Starts a worker as a plain child process (`python -m gr2_worker`): the service runs several and survives the loss of
 * one. A worker ends with this process, however that ends (parent-death signal).
 */
import { spawn } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync } from "node:fs";
import { setPriority } from "node:os";
import { join } from "node:path";
import { EnvironmentError, InterruptedError } from "../core/errors.ts";
import { GrpcWorkerClient } from "./client.ts";
import { type EmbeddedRuntime, privateBase, waitUntilServing } from "./launcher.ts";
import { checkPython, defaultPythonBin, describeEnd, pythonEnvironment } from "./python.ts";

export interface WorkerProcess {
  readonly client: GrpcWorkerClient;
  readonly pid: number;
  /** Resolves, once it has ended, with how. */
  readonly gone: Promise<string>;
  /** Asks it to end, then kills it. Never throws; may be called twice. */
  close(): Promise<void>;
}

function guarded<T>(open: () => T, path: string): T {
  try {
    return open();
  } catch (cause) {
    throw new EnvironmentError(`cannot write ${path}: ${cause instanceof Error ? cause.message : cause}`, {
      cause,
      advice: "It is the worker's log; make the run folder writable.",
    });
  }
}

/** Call before the process has threads: they inherit its priority. */
function lowerPriority(pid: number, niceness: number): void {
  try {
    setPriority(pid, niceness);
  } catch {
    // it has ended already, or the system does not allow it: it then competes with the others
  }
}

/** Pythons already checked: the check blocks this process, which a worker's restart must not do. */
const checked = new Set<string>();

/** How long a worker may take to finish its call when asked to end. */
const patienceMs = 5_000;

/** @param logPath file that the worker's output is appended to */
export async function startWorkerProcess(
  runtime: Pick<EmbeddedRuntime, "python" | "threads" | "device" | "startTimeoutMs"> & { readonly niceness?: number },
  logPath: string,
  signal: AbortSignal,
): Promise<WorkerProcess> {
  if (signal.aborted) throw new InterruptedError();
  const bin = runtime.python ?? defaultPythonBin();
  if (!checked.has(bin)) {
    checkPython(bin);
    checked.add(bin);
  }
  const folder = mkdtempSync(join(privateBase(), "gr2-"));
  const address = `unix:${join(folder, "worker.sock")}`;
  const log = guarded(() => openSync(logPath, "a"), logPath);
  const child = spawn(
    bin,
    [
      ...["-m", "gr2_worker", "--address", address, "--parent-pid", String(process.pid), "--serving"],
      ...["--threads", String(runtime.threads ?? 0), "--device", runtime.device ?? "auto"],
    ],
    { env: pythonEnvironment(), stdio: ["ignore", log, log], detached: true }, // a terminal's Ctrl-C must reach only the service
  );
  closeSync(log); // the child has its own
  if (runtime.niceness !== undefined && child.pid !== undefined) lowerPriority(child.pid, runtime.niceness);
  let ended: string | undefined;
  const gone = new Promise<string>((resolve) => {
    const end = (how: string) => {
      ended ??= how;
      resolve(ended);
    };
    child.on("error", (e) => end(e.message));
    child.on("exit", (code, how) => end(`the worker process is gone (${describeEnd({ code, signal: how })})`));
  });
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  const kill = () => void (ended === undefined && child.kill("SIGKILL"));
  process.once("exit", kill);
  const client = new GrpcWorkerClient(address, { diagnose: () => ended });
  const close = async (): Promise<void> => {
    if (ended === undefined) child.kill("SIGTERM");
    const timer = setTimeout(kill, signal.aborted ? 1_000 : patienceMs);
    await gone;
    clearTimeout(timer);
    client.close();
    process.removeListener("exit", kill);
    removeFolder();
  };
  const onAbort = () => kill();
  signal.addEventListener("abort", onAbort);
  try {
    await waitUntilServing(client, runtime.startTimeoutMs ?? 300_000, () => ended);
  } catch (e) {
    kill();
    await close();
    if (signal.aborted) throw new InterruptedError();
    throw new EnvironmentError(`the worker did not start: ${e instanceof Error ? e.message : e}`, {
      cause: e,
      advice: `Its output is in ${logPath}; gr2 doctor checks the Python side.`,
    });
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
  return { client, pid: child.pid as number, gone, close };
}
