/** Ctrl-C and SIGTERM: the first asks every running call to stop, the second ends the process at once. */
import { exitCodes } from "../core/errors.ts";

/** One Ctrl-C may arrive twice: from the terminal, and forwarded by npm, tsx or timeout. It counts once. */
const samePressMs = 500;

export interface Interrupts {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal;
  /** Restores Node's default handling of the signals. */
  dispose(): void;
}

/**
 * `onFirst` may tell the user that stopping is under way. Exit handlers (which kill an embedded worker) run both times.
 */
export function handleInterrupts(onFirst?: (signal: NodeJS.Signals) => void): Interrupts {
  const controller = new AbortController();
  let first = 0;
  const onSignal = (signal: NodeJS.Signals) => {
    if (controller.signal.aborted) {
      if (performance.now() - first >= samePressMs) process.exit(exitCodes.INTERRUPTED);
      return;
    }
    first = performance.now();
    controller.abort();
    onFirst?.(signal);
  };
  const signals: NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const s of signals) process.on(s, onSignal);
  return {
    signal: controller.signal,
    dispose: () => {
      for (const s of signals) process.removeListener(s, onSignal);
    },
  };
}
