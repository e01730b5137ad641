/** Schedules the reload on SIGHUP. Owns when it runs, not what is loaded. */

/**
 * Runs `work` one at a time. Any number of calls while it runs cause one more run, which sees the changes of all of
 * them. Resolves when that run is done.
 * @param work never rejects
 */
export function coalesce(work: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined;
  let next: Promise<void> | undefined;
  const start = (): Promise<void> => {
    running = work().finally(() => {
      running = undefined;
    });
    return running;
  };
  return () => {
    if (!running) return start();
    next ??= running.then(() => {
      next = undefined;
      return start();
    });
    return next;
  };
}
