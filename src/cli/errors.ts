/** Formats errors for people: what happened, what to do, and a stack trace only with GR2_DEBUG. */
import { exitCodes, Gr2Error } from "../core/errors.ts";

/** Exit code of an error, by its family; 1 for unexpected ones. */
export const exitCodeFor = (error: unknown): number => (error instanceof Gr2Error ? exitCodes[error.code] : 1);

/** The text for stderr, without a trailing newline. */
export function describeError(error: unknown, debug: boolean): string {
  const lines: string[] = [];
  if (error instanceof Gr2Error) {
    lines.push(error.code === "INTERRUPTED" ? "stopped; a rerun resumes from here" : `error: ${error.message.trim()}`);
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
