/**
 * A module behind an address: one POST a call, JSON both ways.
 *
 *   {slates: [{id, history, candidates, scores, labels?}], asked: [[slate, mode, order, reasoning] | slate], options, version}
 *   -> a list with one entry a question, as a Python function returns it
 */
import { InterruptedError } from "../core/errors.ts";
import { Overdue } from "./limits.ts";
import type { NamedPlugin } from "./named.ts";
import { packAnswers, type Question } from "./pack.ts";

const tries = 3;
const pauseMs = 500;

/** Tries again after 429, 5xx and broken connections. Throws Overdue, or an Error that says what came back. */
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
      if (e instanceof SyntaxError) throw new Refused("answered with something that is not JSON");
      const cause = (e as { cause?: { code?: string } }).cause?.code;
      problem = `cannot be reached${cause ? ` (${cause})` : ""}`;
    }
    if (attempt === tries) throw reached ? new Refused(problem) : new Unreachable(problem);
    await new Promise((done) => setTimeout(done, pauseMs * 2 ** (attempt - 1)));
  }
}

/** What an address answered instead of values. */
export class Refused extends Error {}

/** Nobody answers: asking about single questions would not either. */
export class Unreachable extends Refused {}
