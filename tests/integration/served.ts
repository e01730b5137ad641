/** A run of the miniature pipeline as a service of its own process, with real workers. */
import { readdirSync, readFileSync } from "node:fs";
import { type Ended, start, until, type Workspace } from "./mini.ts";

export interface Served {
  readonly grpc: string;
  readonly http: string;
  readonly pid: number;
  readonly ended: Promise<Ended>;
  /** SIGKILL, if it still runs. */
  kill(): void;
}

/** Starts `gr2 serve RUN` on free ports and waits for its one line. */
export async function served(w: Workspace, run: string, ...more: string[]): Promise<Served> {
  const { child, ended } = start(["serve", run, "--root", w.root, "--port", "0", "--http-port", "0", ...more]);
  let out = "";
  child.stdout?.on("data", (data) => {
    out += data;
  });
  let over = false;
  void ended.then(() => {
    over = true;
  });
  await until(() => over || out.includes("\n"), "the ready line");
  const [, grpc, http] = /at grpc (\S+) and (\S+)\n/.exec(out) ?? [];
  if (!grpc || !http) throw new Error(`it did not start: ${(await ended).stderr}`);
  return { grpc, http, pid: child.pid as number, ended, kill: () => void child.kill("SIGKILL") };
}

/** Python workers that are children of a process. */
export const workersUnder = (pid: number): number[] => childrenUnder(pid, (command) => command.includes("gr2_worker"));

/** Further processes of a service (serve.processes): children of its first. */
export const processesUnder = (pid: number): number[] =>
  childrenUnder(pid, (command) => !command.includes("gr2_worker") && command.includes("serve"));

function childrenUnder(pid: number, is: (command: string) => boolean): number[] {
  return readdirSync("/proc").flatMap((entry) => {
    try {
      const [, parent] = /^\d+ \(.*\) \S (\d+)/s.exec(readFileSync(`/proc/${entry}/stat`, "utf8")) ?? [];
      return Number(parent) === pid && is(readFileSync(`/proc/${entry}/cmdline`, "latin1")) ? [Number(entry)] : [];
    } catch {
      return []; // not a process, or gone
    }
  });
}
