/** `gr2 serve`: arguments, signals, the "ready" line and the access log. */
import { ConfigError, exitCodes } from "../core/errors.ts";
import type { AccessRecord } from "../serve/observe/access.ts";
import { serve } from "../serve/serve.ts";

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
  const log = (message: string) => write(`${new Date().toISOString()} ${message}`);
  const access = (record: AccessRecord) => write(JSON.stringify(record));
  const quiet = () => {};
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
    const service = await serve({
      root: args.root,
      name: run,
      overrides: [
        ...args.set,
        ...(args.port === undefined ? [] : [`serve.grpc.port=${args.port}`]),
        ...(args.httpPort === undefined ? [] : [`serve.http.port=${args.httpPort}`]),
      ],
      signal: starting.signal,
      log,
      access: args.log === "requests" ? access : quiet,
    });
    const stopped = new Promise<void>((resolve) => {
      stop = (signal) => {
        log("stopping: finishing accepted requests");
        void service.stop({ lameDuck: signal === "SIGTERM" }).then(resolve);
      };
    });
    reload = () => void service.reload();
    out.write(`ready: ${service.engine.model()?.version} at grpc ${service.grpc.address} and ${service.http.url}\n`);
    await stopped;
  } finally {
    process.off("SIGTERM", onStop).off("SIGINT", onStop).off("SIGHUP", onReload);
  }
}
