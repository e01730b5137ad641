/** Calls a user's code with a time limit, even if the code never yields the thread. */
import { Script } from "node:vm";

/** A call that exceeded its time limit. */
export class Overdue extends Error {
  constructor(seconds: number) {
    super(`gave no answer within ${seconds} s`);
  }
}

const slot = Symbol.for("gr2.plugin.call");
const holder = globalThis as { [slot]?: () => unknown };
// V8 stops what a script calls when the timeout expires; a plain call could not be stopped.
const script = new Script("globalThis[Symbol.for('gr2.plugin.call')]()");

/** @throws Overdue, or what `work` throws */
export async function callWithin<T>(seconds: number, work: () => T | Promise<T>): Promise<T> {
  const timeout = Math.max(1, Math.ceil(1000 * seconds));
  let began: T | Promise<T>;
  holder[slot] = work;
  try {
    began = script.runInThisContext({ timeout, displayErrors: false }) as T | Promise<T>;
  } catch (e) {
    throw (e as { code?: unknown } | null)?.code === "ERR_SCRIPT_EXECUTION_TIMEOUT" ? new Overdue(seconds) : e;
  } finally {
    delete holder[slot];
  }
  if (!(began instanceof Promise)) return began;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Overdue(seconds)), timeout);
  });
  return Promise.race([began, late]).finally(() => clearTimeout(timer));
}
