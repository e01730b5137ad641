/**
 * The service as one process: a run, its workers, gRPC and HTTP, and what the outside may ask of it by signals.
 *
 *   SIGTERM, SIGINT   stop accepting, finish what is accepted, exit 0; a second one ends at once
 *   SIGHUP            read tokens and certificates again, at once, and then the run: if the name (or the symbolic link) now
 *                     leads to another, it is loaded next to the old one, takes over, and the old one finishes and goes
 */
import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/schema.ts";
import { Gr2Error } from "../core/errors.ts";
import { runtimeOptions, startWorker } from "../worker/launcher.ts";
import { startWorkerProcess } from "../worker/process.ts";
import { Deployment } from "./engine/deployment.ts";
import { Engine } from "./engine/engine.ts";
import { LoopLag } from "./engine/loop-lag.ts";
import type { StartedWorker } from "./engine/pool.ts";
import { startGrpcServer } from "./grpc/server.ts";
import { createHttpServer } from "./http/server.ts";
import { openServedRun, type ServedRun } from "./model/served-run.ts";
import type { AccessRecord } from "./observe/access.ts";
import { Metrics } from "./observe/metrics.ts";
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
  /** Lines for the operator. */
  readonly log: (message: string) => void;
  readonly access: (record: AccessRecord) => void;
  /** Instead of Python workers: in tests. */
  readonly startWorker?: (number: number, signal: AbortSignal) => Promise<StartedWorker>;
}

export interface Service {
  readonly engine: Engine;
  readonly grpc: { readonly address: string; readonly port: number };
  readonly http: { readonly url: string; readonly port: number };
  /**
   * Reads tokens and certificates again at once, and then the run; calls while a run loads ask for one more load together.
   * Never throws: what is wrong is logged, and the old ones stay.
   */
  reload(): Promise<void>;
  /** Finishes what is accepted and closes everything. Never throws; may be called twice. */
  stop(): Promise<void>;
}

export async function serve(options: ServeOptions): Promise<Service> {
  const { log, signal } = options;
  const run = await openServedRun(options.root, options.name, options.overrides);
  const { serve: settings } = run.config;
  const security = openSecurity(settings.security);
  for (const host of new Set([settings.grpc.host, settings.http.host])) {
    assertMayListen(host, settings.security);
    for (const warning of listWarnings(host, settings.security)) log(`warning: ${warning}`);
  }
  const metrics = new Metrics();
  const open = (which: ServedRun): Promise<Deployment> =>
    Deployment.open(
      {
        run: which,
        label: randomUUID().slice(0, 8),
        start: options.startWorker ?? workerStarter(which.config, join(options.root, options.name)),
        log,
        onPrompts: (tokens) => metrics.prompts(tokens),
      },
      signal,
    );
  const lag = new LoopLag();
  const engine = new Engine(
    {
      maxQueue: settings.maxQueue,
      maxLagMs: settings.maxLagMs,
      overload: settings.overload,
      onFallback: settings.onFallback,
      defaultDeadlineMs: settings.limits.defaultDeadlineMs,
    },
    log,
    lag,
  );
  engine.deploy(await open(run));
  const { maxRequestBytes, defaultDeadlineMs } = settings.limits;
  const shared = { reranker: engine, security, metrics };
  const http = createHttpServer({
    ...shared,
    http: { ...settings.http, hosts: [...settings.http.hosts] },
    limits: settings.limits,
    log: options.access,
  });
  try {
    lag.start();
    const grpc = await startGrpcServer({
      ...shared,
      ...settings.grpc,
      maxRequestBytes,
      defaultDeadlineMs,
      log,
      access: options.access,
    });
    let httpAddress: { url: string; port: number };
    try {
      httpAddress = await http.listen();
    } catch (e) {
      await grpc.drain(0);
      throw e;
    }
    let stopping: Promise<void> | undefined;
    const stop = async (): Promise<void> => {
      grpc.notServing();
      await engine.drain(settings.drainMs);
      await Promise.all([http.drain(), grpc.drain(settings.http.drainMs)]);
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
        const deployment = await open(next);
        if (deployment.model.version === engine.model()?.version) {
          await deployment.close();
          return log(`reloaded: still ${deployment.model.version}`);
        }
        if (stopping) return void (await deployment.close());
        engine.deploy(deployment);
        log(`reloaded: ${deployment.model.version} answers from now on`);
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
        reloadSecurity(); // at once: a token that was revoked must not live as long as a model takes to load
        return reloadRun();
      },
      stop: () => {
        stopping ??= stop();
        return stopping;
      },
    };
  } catch (e) {
    await engine.drain(0);
    throw e;
  }
}

/** Workers of our own as child processes, or connections to those of serve.addresses. */
export function workerStarter(config: Config, folder: string) {
  const { addresses } = config.serve;
  return async (number: number, signal: AbortSignal): Promise<StartedWorker> => {
    const address = addresses[number];
    if (address !== undefined)
      return startWorker({ mode: "remote", address, tokenFile: config.runtime.tokenFile }, signal);
    const runtime = runtimeOptions({ ...config, runtime: { ...config.runtime, mode: "embedded" } });
    if (runtime.mode !== "embedded") throw new Error("unreachable");
    mkdirSync(folder, { recursive: true });
    return startWorkerProcess(runtime, join(folder, `serve-worker-${number}.log`), signal);
  };
}
