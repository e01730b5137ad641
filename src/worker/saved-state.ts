/** The note a worker writes next to weights it saves; python_worker/gr2_worker/model/checkpoint.py writes the same. */

export const stateFile = "gr2_state.json";

/** The version this release writes; others are refused. */
export const stateFormatVersion = 1;

/** The part the orchestrator reads. */
export interface StateNote {
  readonly format_version: number;
  /** Fingerprint of the frozen model that LoRA weights belong to; "" = whole weights. */
  readonly base: string;
  /** What the weights belong to, as far as recorded. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Of the weights file. */
  readonly sha256: string;
}
