/**
 * Processes identified by pid and start time (pids are reused, pairs are not), and peak memory, exact where /proc
 * exists.
 */
import { readFileSync, writeFileSync } from "node:fs";

/** Clock ticks since boot at which a process started; undefined without /proc or if there is no such process. */
export function readStartTime(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19];
  } catch {
    return undefined;
  }
}

/** True if the process this pair names is still running. A zombie is not. */
export function isAlive(pid: number, startTime: string | undefined): boolean {
  try {
    process.kill(pid, 0);
  } catch (e) {
    return (e as NodeJS.ErrnoException).code === "EPERM";
  }
  if (startTime === undefined) return true;
  return readStartTime(pid) === startTime && !isZombie(pid);
}

function isZombie(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2).startsWith("Z");
  } catch {
    return false;
  }
}

/** Restarts the measurement of these processes' peak resident memory (Linux resets its high-water mark on "5"). */
export function resetPeakMemory(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      writeFileSync(`/proc/${pid}/clear_refs`, "5");
    } catch {
      // not Linux, or not our process: the peak then covers its whole lifetime
    }
  }
}

/** Sum of the processes' peak resident bytes since resetPeakMemory: an upper bound of what they held at once. */
export function peakMemory(pids: readonly number[]): number {
  let sum = 0;
  for (const pid of pids) {
    try {
      const kib = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
      sum += Number(kib ?? 0) * 1024;
    } catch {
      if (pid === process.pid) sum += process.resourceUsage().maxRSS * 1024;
    }
  }
  return sum;
}
