/** `gr2 serve`: arguments, signals, the "ready" line, the access log, one process or several. */
import { ConfigError, exitCodes } from "../core/errors.ts";
import { readServeSettings } from "../serve/model/served-run.ts";
import type { AccessRecord } from "../serve/observe/access.ts";
import type { Started } from "../serve/processes/messages.ts";
import { isPeer, joinPeers } from "../serve/processes/peers.ts";
import { type ProcessGroup, startProcesses } from "../serve/processes/primary.ts";
import { type ServeOptions, type Service, serve } from "../serve/serve.ts";

export interface ServeArguments {
  readonly run?: string;
  readonly root: string;
  readonly set: readonly string[];
  readonly port?: number;
  readonly httpPort?: number;
  readonly log?: string;
}

/** One Ctrl-C may arrive twice: from the terminal, and forwarded by npm or tsx. */
const samePressMs = 500;

/** Writes log lines. Lines that cannot be written (full disk, closed pipe) are dropped; the service keeps running. */
export function lineWriter(stream: NodeJS.WritableStream): (line: string) => void {
  stream.on("error", () => {});
  return (line) => {
    try {
      stream.write(`${line}\n`);
    } catch {
      // dropped, as above
    }
  };
}

/** Serves until a signal ends it. The run may be given as an argument or with --run. */
export async function serveRun(
  name: string | undefined,
  args: ServeArguments,
  out: NodeJS.WritableStream,
  errors: NodeJS.WritableStream = process.stderr,
): Promise<void> {
  const run = name ?? args.run;
  if (run === undefined) throw new ConfigError("no run given: gr2 serve NAME");
  const write = lineWriter(errors);
  const access = (record: AccessRecord) => write(JSON.stringify(record));
  const quiet = () => {};
  const options = {
    root: args.root,
    name: run,
    overrides: [
      ...args.set,
      ...(args.port === undefined ? [] : [`serve.grpc.port=${args.port}`]),
      ...(args.httpPort === undefined ? [] : [`serve.http.port=${args.httpPort}`]),
    ],
    access: args.log === "requests" ? access : quiet,
  };
  const log = (message: string) => write(`${new Date().toISOString()} ${message}`);
  if (isPeer()) return serveAsPeer(options, log);
  const { processes } = readServeSettings(options.root, run, options.overrides).serve;
  const starting = new AbortController();
  let stop: ((signal: NodeJS.Signals) => void) | undefined;
  let asked = 0;
  const onStop = (signal: NodeJS.Signals) => {
    const now = performance.now();
    if (asked > 0 && now - asked >= samePressMs) process.exit(exitCodes.INTERRUPTED);
    if (asked > 0) return;
    asked = now;
    if (stop) stop(signal);
    else starting.abort();
  };
  let reload: () => void = () => {};
  const onReload = () => reload();
  process.on("SIGTERM", onStop).on("SIGINT", onStop).on("SIGHUP", onReload);
  try {
    const { signal } = starting;
    const service = await (processes > 1 ? several(processes, log, signal) : one({ ...options, log, signal }));
    const stopped = new Promise<void>((resolve) => {
      stop = (signal) => {
        log("stopping: finishing accepted requests");
        void service.stop({ lameDuck: signal === "SIGTERM" }).then(resolve);
      };
    });
    reload = () => service.reload();
    const { version, grpc, http } = service.started;
    out.write(`ready: ${version} at grpc ${grpc.address} and ${http.url}\n`);
    await stopped;
  } finally {
    process.off("SIGTERM", onStop).off("SIGINT", onStop).off("SIGHUP", onReload);
  }
}

const several = (count: number, log: (message: string) => void, signal: AbortSignal): Promise<ProcessGroup> =>
  startProcesses({ count, log, signal });

async function one(options: ServeOptions): Promise<ProcessGroup> {
  const service = await serve(options);
  return {
    started: describe(service),
    reload: () => void service.reload(),
    stop: (how) => service.stop(how),
  };
}

const describe = ({ engine, grpc, http }: Service): Started => ({ version: engine.model()?.version ?? "", grpc, http });

/** One of several processes: does what the primary says. Signals reach all of them; only the primary acts on them. */
export async function serveAsPeer(
  options: Omit<ServeOptions, "log" | "signal" | "peers">,
  write: (message: string) => void,
): Promise<void> {
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, () => {});
  const peers = await joinPeers();
  const log = (message: string): void => write(`process ${peers.number}: ${message}`);
  const starting = new AbortController();
  let service: Service | undefined;
  const stopped = peers.untilStopped(() => void service?.reload());
  void stopped.then(() => service ?? starting.abort());
  try {
    service = await serve({ ...options, log, signal: starting.signal, peers });
    peers.started(describe(service));
    await service.stop(await stopped);
  } catch (e) {
    peers.failed(e);
  }
  peers.leave();
}
