/**
 * A module served over HTTP: one POST per call, JSON both ways.
 *
 *   {slates: [{id, history, candidates, scores, labels?}], asked: [[slate, mode, order, reasoning] | slate],
 *    options, version}
 *   -> a list with one entry per question, as a Python function would return it
 */
import { InterruptedError } from "../core/errors.ts";
import { Overdue } from "./limits.ts";
import type { NamedPlugin } from "./named.ts";
import { packAnswers, type Question } from "./pack.ts";

const tries = 3;
const pauseMs = 500;

/** Retries after 429, 5xx and broken connections. Throws Overdue, or an Error that describes the response. */
export async function askHttp(
  { module, options, version, timeoutSeconds }: NamedPlugin,
  questions: readonly Question[],
  signal?: AbortSignal,
): Promise<unknown> {
  const body = JSON.stringify({ ...packAnswers(questions), options, version });
  for (let attempt = 1; ; attempt++) {
    const late = AbortSignal.timeout(1000 * timeoutSeconds);
    let problem: string;
    let reached = false;
    try {
      const response = await fetch(module, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body,
        redirect: "error",
        signal: signal ? AbortSignal.any([late, signal]) : late,
      });
      reached = true;
      const text = await response.text();
      if (response.ok) return JSON.parse(text) as unknown;
      problem = `answered with status ${response.status}: ${text.slice(0, 200)}`;
      if (response.status !== 429 && response.status < 500) throw new Refused(problem);
    } catch (e) {
      if (signal?.aborted) throw new InterruptedError();
      if (late.aborted) throw new Overdue(timeoutSeconds);
      if (e instanceof Refused) throw e;
      if (e instanceof SyntaxError) throw new Refused("answered with invalid JSON");
      const cause = (e as { cause?: { code?: string } }).cause?.code;
      problem = `cannot be reached${cause ? ` (${cause})` : ""}`;
    }
    if (attempt === tries) throw reached ? new Refused(problem) : new Unreachable(problem);
    await new Promise((done) => setTimeout(done, pauseMs * 2 ** (attempt - 1)));
  }
}

/** The address answered with something other than values. */
export class Refused extends Error {}

/** The address does not answer: retrying single questions would not help. */
export class Unreachable extends Refused {}
