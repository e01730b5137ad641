/**
 * runs/NAME/: everything a run leaves, and the lock that lets only one process at a time write it.
 *   manifest.json  config.resolved.yaml  metrics.jsonl  rollouts.jsonl  metrics.json  report.html  telemetry.json
 *   stages/STAGE/  what a stage made, with done.json (stage-cache.ts) and cursor.json (resume)
 */
import { closeSync, linkSync, openSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { join, resolve } from "node:path";
import { RunError } from "../core/errors.ts";
import { fileError, makeFolder, tryReadJson, writeAll, writeAtomic } from "./files.ts";
import { isAlive, readStartTime } from "./processes.ts";

interface Lock {
  readonly pid: number;
  readonly startTime: string | undefined;
  readonly host: string;
  readonly since: string;
}

export class RunFolder {
  readonly name: string;
  /** ROOT/NAME, absolute: paths below it are sent to the worker, whose working folder may differ. */
  readonly path: string;
  private locked = false;

  private constructor(root: string, name: string) {
    this.name = name;
    this.path = resolve(root, name);
  }

  /** Creates the folder if needed and takes its lock. Throws RunError if a running process holds it. */
  static open(root: string, name: string): RunFolder {
    const folder = new RunFolder(root, checkName(name));
    makeFolder(folder.file("stages"));
    folder.lock();
    return folder;
  }

  /** For reading only: no lock. Throws RunError if there is no such run. */
  static view(root: string, name: string): RunFolder {
    const folder = new RunFolder(root, checkName(name));
    if (!isFolder(folder.path)) {
      const others = listRuns(root);
      const known = others.length > 0 ? `Runs here: ${others.join(", ")}.` : `There are no runs under ${root} yet.`;
      throw new RunError(`no run "${name}" under ${root}`, { advice: known });
    }
    return folder;
  }

  file(...parts: string[]): string {
    return join(this.path, ...parts);
  }

  stageFolder(stage: string): string {
    return makeFolder(this.file("stages", stage));
  }

  /** Releases the lock. */
  release(): void {
    if (!this.locked) return;
    this.locked = false;
    process.removeListener("exit", this.releaseAtExit);
    rmSync(this.lockFile, { force: true });
  }

  /** The running process that holds this run, if any. */
  holder(): { pid: number; since: string } | undefined {
    const lock = tryReadJson(this.lockFile) as Lock | undefined;
    if (!lock || !holds(lock)) return undefined;
    return { pid: lock.pid, since: lock.since };
  }

  private get lockFile(): string {
    return this.file("lock.json");
  }

  private readonly releaseAtExit = (): void => this.release();

  private lock(): void {
    const mine: Lock = {
      pid: process.pid,
      startTime: readStartTime(process.pid),
      host: hostname(),
      since: new Date().toISOString(),
    };
    for (let attempt = 0; attempt < 3; attempt++) {
      if (this.createLock(mine)) {
        this.locked = true;
        process.once("exit", this.releaseAtExit);
        return;
      }
      this.removeStaleLock();
    }
    throw new RunError(`the run "${this.name}" is being taken by another process`, {
      advice: "Choose another --run NAME.",
    });
  }

  /** Creates the lock with its content in one step (a link to a finished file); false if there is a lock already. */
  private createLock(mine: Lock): boolean {
    const temporary = `${this.lockFile}.${process.pid}`;
    writeAtomic(temporary, JSON.stringify(mine));
    try {
      linkSync(temporary, this.lockFile);
      return true;
    } catch (e) {
      const code = (e as NodeJS.ErrnoException).code;
      if (code === "EEXIST") return false;
      if (code !== "EPERM" && code !== "ENOTSUP" && code !== "EOPNOTSUPP") throw fileError("lock", this.path, e);
      return this.createLockWithoutLinks(mine);
    } finally {
      rmSync(temporary, { force: true });
    }
  }

  private createLockWithoutLinks(mine: Lock): boolean {
    try {
      const fd = openSync(this.lockFile, "wx");
      writeAll(fd, Buffer.from(JSON.stringify(mine)));
      closeSync(fd);
      return true;
    } catch (e) {
      if ((e as NodeJS.ErrnoException).code === "EEXIST") return false;
      throw fileError("lock", this.path, e);
    }
  }

  /** Moves a dead process's lock aside, then checks what it moved, since another process may have been faster. */
  private removeStaleLock(): void {
    this.refuseIfHeld(tryReadJson(this.lockFile) as Lock | undefined);
    const aside = `${this.lockFile}.stale.${process.pid}`;
    try {
      renameSync(this.lockFile, aside);
    } catch {
      return; // somebody else moved it
    }
    const moved = tryReadJson(aside) as Lock | undefined;
    try {
      if (moved && holds(moved)) linkSync(aside, this.lockFile);
    } finally {
      rmSync(aside, { force: true });
    }
    this.refuseIfHeld(moved);
  }

  private refuseIfHeld(lock: Lock | undefined): void {
    if (!lock || !holds(lock)) return;
    const where = lock.host === hostname() ? "" : ` on ${lock.host}`;
    throw new RunError(`the run "${this.name}" is in use by process ${lock.pid}${where}, since ${lock.since}`, {
      advice: "Wait for it, watch it with `gr2 watch`, or choose another --run NAME.",
    });
  }
}

/** A lock taken on another machine cannot be checked and counts as held. */
const holds = (lock: Lock): boolean => lock.host !== hostname() || isAlive(lock.pid, lock.startTime);

function checkName(name: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/.test(name)) {
    throw new RunError(`"${name}" is not a valid run name`, {
      advice: "Use letters, digits, dots, dashes and underscores, starting with a letter or digit.",
    });
  }
  return name;
}

const isFolder = (path: string): boolean => statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;

/** Names of the runs under a root, newest first. */
export function listRuns(root: string): string[] {
  if (!isFolder(root)) return [];
  return readdirSync(root)
    .filter((name) => isFolder(join(root, name)) && isFolder(join(root, name, "stages")))
    .sort((a, b) => statSync(join(root, b)).mtimeMs - statSync(join(root, a)).mtimeMs || (a < b ? -1 : 1));
}
