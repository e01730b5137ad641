/**
 * One process of the service, usually the only one: a run, its workers, gRPC, HTTP, and signals. Several
 * (serve.processes) are coordinated by processes/primary.ts.
 *
 *   SIGTERM           report "not ready" but answer for serve.lameDuckMs; then as SIGINT
 *   SIGINT            stop accepting, finish what is accepted, exit 0; a second signal of either kind exits at once
 *   SIGHUP            reread tokens and certificates, then the run: if the name (or the symbolic link) now leads to
 *                     another run, it is loaded next to the old one and takes over; the old one finishes and closes
 */
import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Config } from "../config/schema.ts";
import { ConfigError, Gr2Error } from "../core/errors.ts";
import { readOwnPackage } from "../core/own-package.ts";
import { runtimeOptions, startWorker } from "../worker/launcher.ts";
import { startWorkerProcess } from "../worker/process.ts";
import { Deployment } from "./engine/deployment.ts";
import { Engine } from "./engine/engine.ts";
import { LoopLag } from "./engine/loop-lag.ts";
import type { StartedWorker } from "./engine/pool.ts";
import { startGrpcServer } from "./grpc/server.ts";
import { createHttpServer } from "./http/server.ts";
import { openServedRun, readServeSettings, type ServedRun } from "./model/served-run.ts";
import type { AccessRecord } from "./observe/access.ts";
import { Metrics, type MetricsSnapshot } from "./observe/metrics.ts";
import { passOn, type Tracing } from "./observe/trace.ts";
import { PeerReranker, type Peers } from "./processes/peers.ts";
import { coalesce } from "./reload.ts";
import { assertMayListen, listWarnings, openSecurity } from "./security/security.ts";

export interface ServeOptions {
  /** Folder of all runs. */
  readonly root: string;
  /** A run, or a symbolic link to one. */
  readonly name: string;
  /** path=value; only serve.* and runtime.*. */
  readonly overrides: readonly string[];
  /** Aborts the start. */
  readonly signal: AbortSignal;
  /** Receives lines for the operator. */
  readonly log: (message: string) => void;
  readonly access: (record: AccessRecord) => void;
  /** Replaces the Python workers in tests. */
  readonly startWorker?: StartWorker;
  /** The other processes of the service, where there are any. */
  readonly peers?: Peers;
}

export interface Service {
  readonly engine: Engine;
  readonly grpc: { readonly address: string; readonly port: number };
  readonly http: { readonly url: string; readonly port: number };
  /**
   * Rereads tokens and certificates immediately, then the run; calls while a run loads together cause one more load.
   * Never throws: problems are logged, and the old ones stay in use.
   */
  reload(): Promise<void>;
  /**
   * Finishes accepted requests and closes everything. Never throws; may be called twice.
   * @param options.lameDuck first reports "not ready" for serve.lameDuckMs while still answering; default false
   */
  stop(options?: { readonly lameDuck?: boolean }): Promise<void>;
}

export async function serve(given: ServeOptions): Promise<Service> {
  const options = given.peers ? { ...given, overrides: [...given.overrides, ...shareOut(given, given.peers)] } : given;
  const { log, signal, peers } = options;
  const config = readServeSettings(options.root, options.name, options.overrides);
  const { serve: settings } = config;
  const security = openSecurity(settings.security);
  for (const host of new Set([settings.grpc.host, settings.http.host])) {
    assertMayListen(host, settings.security);
    for (const warning of listWarnings(host, settings.security)) log(`warning: ${warning}`);
  }
  const metrics = new Metrics();
  const lag = new LoopLag();
  const { maxRequestBytes, defaultDeadlineMs } = settings.limits;
  const engine = new Engine({ ...settings, defaultDeadlineMs }, log, lag);
  const tracing = await openTracing(settings.otlp);
  const reranker = peers ? new PeerReranker(engine, peers) : engine;
  const shared = { reranker, security, metrics, tracing };
  const http = createHttpServer({
    ...shared,
    http: { ...settings.http, hosts: [...settings.http.hosts] },
    limits: settings.limits,
    log: options.access,
    ...(peers ? { otherMetrics: async () => (await peers.ask("metrics")) as readonly MetricsSnapshot[] } : {}),
  });
  const listen = async () => {
    const httpAddress = await http.listen();
    const grpc = await startGrpcServer({
      ...{ ...shared, ...settings.grpc, maxRequestBytes, defaultDeadlineMs },
      ...{ log, access: options.access },
    }).catch(async (e: unknown) => {
      await http.close();
      throw e;
    });
    peers?.join(
      (question) => (question === "metrics" ? metrics.snapshot(engine) : engine.refreshItems()),
      () => engine.ready(),
    );
    return { httpAddress, grpc };
  };
  // Before the model loads: a port in use is reported immediately, and /readyz shows the progress of the start. A
  // process that replaces a lost one listens afterwards: until then the others answer.
  const early = peers?.late ? undefined : await listen();
  const numbering = { process: peers?.number ?? 0, workers: settings.workers };
  const folder = join(options.root, options.name);
  const startNext = options.startWorker ?? workerStarter(config, folder, numbering);
  const ahead = startAhead(startNext, signal);
  const open = (run: ServedRun, start: StartWorker): Promise<Deployment> => {
    const startEncoder = options.startWorker ? undefined : encoderStarter(run.config, folder, numbering.process);
    const itemsFile = run.config.serve.items || join(options.root, `${options.name}.items.jsonl`);
    const label = randomUUID().slice(0, 8);
    return Deployment.open(
      { run, label, start, startEncoder, itemsFile, log, onPrompts: (tokens) => metrics.prompts(tokens) },
      signal,
    );
  };
  try {
    engine.deploy(await open(await openServedRun(options.root, options.name, options.overrides), ahead.start));
    lag.start();
  } catch (e) {
    await Promise.all([http.close(), early?.grpc.drain(0), ahead.close(), engine.drain(0)]);
    throw e;
  }
  const { httpAddress, grpc } = early ?? (await listen());
  let stopping: Promise<void> | undefined;
  const stop = async (lameDuck: boolean): Promise<void> => {
    grpc.notServing();
    http.notReady();
    if (lameDuck) await sleep(settings.lameDuckMs);
    await engine.drain(settings.drainMs);
    await Promise.all([http.drain(), grpc.drain(settings.http.drainMs)]);
    await tracing.close();
    lag.stop();
  };
  const failed = (what: string, e: unknown): void =>
    log(`reload failed, the old ${what}: ${e instanceof Gr2Error ? e.message : String(e)}`);
  const reloadSecurity = (): void => {
    try {
      security.reload();
    } catch (e) {
      failed("tokens or certificates stay", e);
    }
    try {
      http.reloadCertificates();
      grpc.reloadCertificates();
    } catch (e) {
      failed("certificates stay", e);
    }
  };
  const reloadRun = coalesce(async () => {
    if (stopping) return;
    try {
      const next = await openServedRun(options.root, options.name, options.overrides);
      const start = options.startWorker ?? workerStarter(next.config, folder, numbering);
      const deployment = await open(next, start);
      if (deployment.model.version === engine.model()?.version) {
        await deployment.close();
        return log(`reloaded: still ${deployment.model.version}`);
      }
      if (stopping) return void (await deployment.close());
      engine.deploy(deployment);
      log(`reloaded: ${deployment.model.version} now answers`);
    } catch (e) {
      failed("one stays", e);
    }
  });
  return {
    engine,
    grpc: { address: `${settings.grpc.host}:${grpc.port}`, port: grpc.port },
    http: httpAddress,
    reload: () => {
      if (stopping) return Promise.resolve();
      reloadSecurity(); // immediately: a revoked token must not stay valid while a model loads
      return reloadRun();
    },
    stop: ({ lameDuck = false } = {}) => {
      stopping ??= stop(lameDuck);
      return stopping;
    },
  };
}

/** @param otlp the setting; its packages are imported only if it is on */
async function openTracing(otlp: string): Promise<Tracing> {
  if (otlp === "") return passOn;
  const { openOtlp } = await import("./observe/otlp.ts");
  const { version } = readOwnPackage();
  return openOtlp(otlp === "env" ? "" : otlp, version);
}

type StartWorker = (number: number, signal: AbortSignal) => Promise<StartedWorker>;

/** Starts worker 0 while the run is read: both take seconds. `close` ends it if it was never used. */
function startAhead(start: StartWorker, signal: AbortSignal): { start: StartWorker; close(): Promise<void> } {
  let first: Promise<StartedWorker> | undefined = start(0, signal);
  first.catch(() => {}); // whoever awaits it sees the reason
  return {
    start: (number, ending) => {
      const started = number === 0 ? first : undefined;
      if (started) first = undefined;
      return started ?? start(number, ending);
    },
    close: async () => {
      await first?.then(
        (worker) => worker.close(),
        () => {},
      );
    },
  };
}

/** What a process of several overrides: its part of the addresses, and of the machine's threads. */
function shareOut({ root, name, overrides }: ServeOptions, { number, count }: Peers): string[] {
  const { serve, runtime } = readServeSettings(root, name, overrides);
  const { addresses, workers } = serve;
  if (addresses.length > 0 && addresses.length < count)
    throw new ConfigError(`serve.processes=${count} needs as many workers; serve.addresses lists ${addresses.length}`, {
      advice: "List more workers, or lower serve.processes.",
    });
  if (addresses.length > 0)
    return [`serve.addresses=${JSON.stringify(addresses.filter((_, i) => i % count === number))}`];
  const threads = Math.max(1, Math.floor(availableParallelism() / (count * workers)));
  return runtime.threads === 0 ? [`runtime.threads=${threads}`] : [];
}

/**
 * Workers of our own as child processes, or connections to those of serve.addresses.
 * @param numbering of their logs, where several processes have workers
 */
export function workerStarter(
  config: Config,
  folder: string,
  numbering: { readonly process: number; readonly workers: number } = { process: 0, workers: 0 },
): StartWorker {
  const { addresses } = config.serve;
  return async (number, signal) => {
    const address = addresses[number];
    if (address !== undefined)
      return startWorker({ mode: "remote", address, tokenFile: config.runtime.tokenFile }, signal);
    const log = `serve-worker-${numbering.process * numbering.workers + number}.log`;
    return startOwn(config, folder, log, {}, signal);
  };
}

/** Lower priority than the workers that answer: a text takes milliseconds and must not delay answers. */
const encoderNiceness = 5;

/** A child process that encodes unknown texts, unless serve.encoder says that the workers do. */
function encoderStarter(config: Config, folder: string, process: number) {
  const { addresses, encoder } = config.serve;
  if (encoder === "shared" || (encoder === "auto" && addresses.length > 0)) return undefined;
  const change = { threads: 1, niceness: encoderNiceness };
  const log = process === 0 ? "serve-encoder.log" : `serve-encoder-${process}.log`;
  return (signal: AbortSignal) => startOwn(config, folder, log, change, signal);
}

function startOwn(
  config: Config,
  folder: string,
  log: string,
  change: { readonly threads?: number; readonly niceness?: number },
  signal: AbortSignal,
): Promise<StartedWorker> {
  const runtime = runtimeOptions({ ...config, runtime: { ...config.runtime, mode: "embedded" } });
  if (runtime.mode !== "embedded") throw new Error("unreachable");
  mkdirSync(folder, { recursive: true });
  return startWorkerProcess({ ...runtime, ...change }, join(folder, log), signal);
}
