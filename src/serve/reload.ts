/** What SIGHUP starts. Owns when it runs, not what is loaded. */

/**
 * Runs `work` one at a time. A call while it runs asks for one more run after it, however many calls there are: what came
 * in between is seen by that run. Resolves when the run that sees the call is done.
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
