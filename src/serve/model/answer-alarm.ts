/**
 * Raises an alarm if too many of the latest answers with reasoning are invalid, because of their order or because of
 * worthless reasoning. Callers then get their own order (fallback invalid_answer); the alarm tells the operator why.
 */

/** Number of latest answers considered, and the minimum needed for an alarm. */
const window = 100;
const fewest = 20;
/** Share that raises the alarm, and share below which it is re-armed. */
const raisedAbove = 0.1;
const calmBelow = 0.05;

export class AnswerAlarm {
  private readonly log: (message: string) => void;
  private readonly reasons: (string | undefined)[] = [];
  private raised = false;

  constructor(log: (message: string) => void) {
    this.log = log;
  }

  /** @param reason why an answer is invalid; undefined if it is valid */
  readonly note = (reason: string | undefined): void => {
    this.reasons.push(reason);
    if (this.reasons.length > window) this.reasons.shift();
    const invalid = this.reasons.filter((r) => r !== undefined);
    const share = invalid.length / this.reasons.length;
    if (share < calmBelow) this.raised = false;
    if (this.raised || this.reasons.length < fewest || share <= raisedAbove) return;
    this.raised = true;
    const counts = new Map<string, number>();
    for (const r of invalid) counts.set(r, (counts.get(r) ?? 0) + 1);
    const why = [...counts].sort((a, b) => b[1] - a[1]).map(([r, n]) => `${r}: ${n}`);
    this.log(
      `! ${invalid.length} of the last ${this.reasons.length} answers with reasoning are invalid ` +
        `(${why.join(", ")}); ` +
        `their callers get their own order. Serve mode direct, or train the model longer.`,
    );
  };
}
