/**
 * Starts a worker (embedded, through pythonia) or connects to one (remote), and waits until it serves. An embedded one
 * ends with this process, however that ends: close(), process exit, SIGKILL (the worker's own parent-death signal).
 * Not here: what the worker is asked to do.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ServiceError, status } from "@grpc/grpc-js";
import type { Config } from "../config/schema.ts";
import { EnvironmentError, Gr2Error, InterruptedError, WorkerError } from "../core/errors.ts";
import { GrpcWorkerClient } from "./client.ts";
import { checkPython, defaultPythonBin, describeEnd, type PythonProcess, sharePython } from "./python.ts";

export interface EmbeddedRuntime {
  readonly mode: "embedded";
  /** Default: .venv/bin/python of the repository. */
  readonly python?: string;
  /** torch threads; 0 or left out: the worker chooses. */
  readonly threads?: number;
  /** "auto" (default), "cpu", "cuda", "cuda:1". */
  readonly device?: string;
  /** File for the worker's output; default: in the private temporary folder. */
  readonly logPath?: string;
  /** Longest wait until the worker serves; default 300 s (a cold import of torch). */
  readonly startTimeoutMs?: number;
  /** "unix" (default) or a loopback port to listen on (0 = any free one). */
  readonly port?: number;
}

export interface RemoteRuntime {
  readonly mode: "remote";
  /** "host:port" or "unix:/path". */
  readonly address: string;
  /** File with the secret the worker requires; "" or left out: none. */
  readonly tokenFile?: string;
  /** Longest wait until the worker serves; default 30 s. */
  readonly startTimeoutMs?: number;
}

export type Runtime = EmbeddedRuntime | RemoteRuntime;

export interface RunningWorker {
  readonly client: GrpcWorkerClient;
  readonly address: string;
  /** Of an embedded worker. */
  readonly pid: number | undefined;
  /** Disconnects; stops an embedded worker and waits for its process to end. Never throws; may be called twice. */
  close(): Promise<void>;
}

/** What gr2_worker.boot.boot returns. */
interface BootAnswer {
  readonly ok: boolean;
  readonly address?: string;
  readonly error?: string;
}

/** Starts or connects; the signal aborts the start and, later, every call of the client. */
export async function startWorker(runtime: Runtime, signal?: AbortSignal): Promise<RunningWorker> {
  if (signal?.aborted) throw new InterruptedError();
  return runtime.mode === "remote" ? connect(runtime, signal) : embed(runtime, signal);
}

async function connect(runtime: RemoteRuntime, signal: AbortSignal | undefined): Promise<RunningWorker> {
  const client = new GrpcWorkerClient(runtime.address, { signal, token: readToken(runtime.tokenFile ?? "") });
  try {
    await waitUntilServing(client, runtime.startTimeoutMs ?? 30_000);
  } catch (e) {
    client.close();
    if (e instanceof InterruptedError || refusesToken(e)) throw e;
    throw new EnvironmentError(`no worker answers at ${runtime.address}`, {
      cause: e,
      advice:
        "Start it there: python -m gr2_worker --address HOST:PORT --token-file FILE --root FOLDER; or set runtime.mode=embedded.",
    });
  }
  return { client, address: runtime.address, pid: undefined, close: async () => client.close() };
}

const refusesToken = (e: unknown): boolean =>
  e instanceof WorkerError && (e.cause as Partial<ServiceError> | undefined)?.code === status.UNAUTHENTICATED;

/** The secret of a remote worker. Throws EnvironmentError if the file cannot be read or has none. */
function readToken(file: string): string | undefined {
  if (file === "") return undefined;
  let token: string;
  try {
    token = readFileSync(file, "utf8").trim();
  } catch (cause) {
    throw new EnvironmentError(`runtime.tokenFile: ${file} cannot be read`, {
      cause,
      advice: "It must be a copy of the file the worker was started with (--token-file).",
    });
  }
  if (!/^[\x21-\x7e]{16,}$/.test(token))
    throw new EnvironmentError(`runtime.tokenFile: ${file} does not contain a token`, {
      advice: "A token has at least 16 printable ASCII characters and no spaces: openssl rand -base64 32 > FILE.",
    });
  return token;
}

async function embed(runtime: EmbeddedRuntime, signal: AbortSignal | undefined): Promise<RunningWorker> {
  const bin = runtime.python ?? defaultPythonBin();
  checkPython(bin);
  const folder = privateFolder();
  const logPath = runtime.logPath ?? join(folder, "worker.log");
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  let python: PythonProcess | undefined;
  let client: GrpcWorkerClient | undefined;
  try {
    python = await sharePython({ bin, logPath });
    const process_ = python;
    const answer = (await interruptible(
      process_.call("gr2_worker.boot", "boot", {
        address: runtime.port === undefined ? `unix:${join(folder, "worker.sock")}` : `127.0.0.1:${runtime.port}`,
        threads: runtime.threads ?? 0,
        device: runtime.device ?? "auto",
        parent_pid: process.pid,
      }),
      signal,
    )) as BootAnswer;
    if (!answer.ok || !answer.address) throw bootError(answer.error ?? "no reason given");
    client = new GrpcWorkerClient(answer.address, {
      signal,
      diagnose: () => {
        const end = process_.ended();
        return end && `the worker process is gone (${describeEnd(end)})`;
      },
    });
    await waitUntilServing(client, runtime.startTimeoutMs ?? 300_000);
  } catch (e) {
    client?.close();
    const last = python?.lastOutput(3);
    const died = python?.ended() !== undefined;
    await python?.exit();
    removeFolder();
    if (e instanceof InterruptedError || (e instanceof Gr2Error && !died)) throw e;
    const reason = e instanceof Error && e.message ? e.message : "Python raised an error";
    throw new EnvironmentError(
      `the worker did not start: ${reason}${last ? `; it said: ${last.replaceAll("\n", " | ")}` : ""}`,
      {
        cause: e,
        advice: "Run `gr2 doctor` to see what is wrong with the Python side.",
      },
    );
  }
  return embedded(client, python, removeFolder, signal);
}

function embedded(
  client: GrpcWorkerClient,
  python: PythonProcess,
  removeFolder: () => void,
  signal: AbortSignal | undefined,
): RunningWorker {
  process.once("exit", removeFolder);
  let closing: Promise<void> | undefined;
  const close = async () => {
    // A worker in the middle of a long call finishes it first; after an interrupt nobody should wait for that.
    const patienceMs = signal?.aborted ? 1_000 : 5_000;
    if (!python.ended()) {
      const farewell = new GrpcWorkerClient(client.address);
      await farewell.shutdown({ timeoutMs: patienceMs }).catch(() => {});
      farewell.close();
      await python.waitForEnd(patienceMs);
    }
    client.close();
    await python.exit();
    removeFolder();
    process.removeListener("exit", removeFolder);
  };
  return {
    client,
    address: client.address,
    pid: python.pid,
    close: () => {
      closing ??= close();
      return closing;
    },
  };
}

/**
 * Polls until it serves. Throws WorkerError if it does not in time or has died, InterruptedError if interrupted.
 * @param dead how its process ended, once it has
 */
export async function waitUntilServing(
  client: GrpcWorkerClient,
  timeoutMs: number,
  dead: () => string | undefined = () => undefined,
): Promise<void> {
  const end = Date.now() + timeoutMs;
  for (;;) {
    try {
      if (await client.health({ timeoutMs: Math.max(1, Math.min(10_000, end - Date.now())) })) return;
    } catch (e) {
      if (e instanceof InterruptedError || (e instanceof WorkerError && !e.retryable) || Date.now() >= end) throw e;
    }
    const reason = dead();
    if (reason !== undefined) throw new WorkerError(reason, { retryable: false });
    if (Date.now() >= end)
      throw new WorkerError(`the worker at ${client.address} did not become ready in time`, { retryable: true });
    await new Promise((done) => setTimeout(done, 50));
  }
}

function bootError(reason: string): EnvironmentError {
  const advice = /address already in use|port/i.test(reason)
    ? "Choose another port, or omit runtime.port to use a unix socket."
    : "Run `gr2 doctor` to see what is wrong with the Python side.";
  return new EnvironmentError(`the worker did not start: ${reason}`, { advice });
}

/** Where sockets go: their paths must stay under ~104 bytes, so a long TMPDIR is avoided. */
export const privateBase = (): string => (tmpdir().length > 60 ? "/tmp" : tmpdir());

/** A folder only this user can enter. */
const privateFolder = (): string => mkdtempSync(join(privateBase(), "gr2-"));

function interruptible<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(new InterruptedError());
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}

/** How to start the recipe's worker; `logPath` gets the output of an embedded one. */
export const runtimeOptions = (config: Config, logPath?: string): Runtime =>
  config.runtime.mode === "remote"
    ? { mode: "remote", address: config.runtime.address, tokenFile: config.runtime.tokenFile }
    : {
        mode: "embedded",
        python: config.runtime.python,
        threads: config.runtime.threads,
        device: config.runtime.device,
        ...(logPath ? { logPath } : {}),
      };
