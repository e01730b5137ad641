/** Errors as a person reads them: one sentence, what to do, no stack trace unless asked for. */
import { exitCodes, Gr2Error } from "../core/errors.ts";

/** Exit code for an error: by its family, 1 for what we did not foresee. */
export const exitCodeFor = (error: unknown): number => (error instanceof Gr2Error ? exitCodes[error.code] : 1);

/** The text for stderr, without a newline at its end. */
export function describeError(error: unknown, debug: boolean): string {
  const lines: string[] = [];
  if (error instanceof Gr2Error) {
    lines.push(error.code === "INTERRUPTED" ? "stopped; a rerun goes on from here" : `error: ${error.message.trim()}`);
    if (error.advice) lines.push(`       ${error.advice.trim()}`);
  } else {
    lines.push(`error: ${oneLine(error instanceof Error ? error.message || error.name : String(error))}`);
    if (!debug) lines.push("       This is a bug in GR2. Set GR2_DEBUG=1 for the stack trace.");
  }
  if (debug) {
    for (let e: unknown = error; e instanceof Error; e = e.cause) lines.push(e.stack ?? String(e));
  }
  return lines.join("\n");
}

const oneLine = (text: string): string => text.trim().replace(/\s*\n\s*/g, " | ");
