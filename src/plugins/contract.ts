/**
 * Checks a module against its contract: its functions when it is opened, its return values at every call. A violation
 * becomes an error that names the module, the slate and the value.
 */
import { z } from "zod";
import { Gr2Error } from "../core/errors.ts";
import { Unreachable } from "./http.ts";
import { callWithin, Overdue } from "./limits.ts";
import { type NamedPlugin, pluginFault, pluginMisfit } from "./named.ts";
import { describeThrown, type OpenModule } from "./open.ts";
import type { Question } from "./pack.ts";

/** Checks only that it is a function; arguments and results are checked at each call. */
export const isFunction = z.custom<(...args: never[]) => unknown>((value) => typeof value === "function", {
  error: "it must be a function",
});

/** Calls an open module; each call has the module's time limit. */
export interface Asked<Q> {
  readonly ask: (questions: readonly Q[]) => Promise<unknown>;
  /** Whether it can be called again after a call that timed out. */
  readonly again: boolean;
}

/**
 * The named function of a script's object, or the remote function itself.
 * @param expected in words: "a reward, {score(answers)}"
 */
export function openFunction<Q extends Question>(
  opened: OpenModule,
  plugin: NamedPlugin,
  method: string,
  expected: string,
): Asked<Q> {
  if (opened.kind === "remote") return { ask: (questions) => opened.ask(questions), again: false };
  const value = checkShape(z.looseObject({ [method]: isFunction }), opened.value, plugin, expected);
  const call = value as Readonly<Record<string, (questions: readonly Q[]) => unknown>>;
  return {
    ask: (questions) => callWithin(plugin.timeoutSeconds, () => call[method]?.(questions)),
    again: true,
  };
}

/** Returns the value itself, not a copy: it may be a class instance. Throws ConfigError naming what is missing. */
export function checkShape<T>(shape: z.ZodType<T>, value: unknown, plugin: NamedPlugin, expected: string): T {
  const parsed = shape.safeParse(value);
  if (parsed.success) return value as T;
  const problems = parsed.error.issues.map((i) =>
    i.path.length > 0 ? `${i.path.join(".")}: ${i.message}` : i.message,
  );
  throw pluginMisfit(plugin, `it is not ${expected}: ${problems.join("; ")}`);
}

/** How questions appear in messages, and how their results are checked. */
export interface About<Q> {
  readonly getSlate: (question: Q) => string;
  /** What distinguishes the question from others on the slate: "order 2,0,1". */
  readonly describe?: (question: Q) => string;
  /** What is wrong with the value, in words; undefined if nothing. */
  readonly findFault: (value: unknown, question: Q) => string | undefined;
}

/** Calls the module and returns one checked value per question. Throws RunError. */
export async function askChecked<Q>(
  plugin: NamedPlugin,
  { ask, again }: Asked<Q>,
  questions: readonly Q[],
  about: About<Q>,
): Promise<readonly unknown[]> {
  if (questions.length === 0) return [];
  let values: unknown;
  try {
    values = await ask(questions);
  } catch (e) {
    if (e instanceof Gr2Error) throw e;
    const hopeless = e instanceof Unreachable || (e instanceof Overdue && !again);
    const culprit = hopeless ? undefined : await findCulprit(ask, questions);
    const thrown = culprit?.thrown ?? e;
    const of = culprit?.question ?? (questions.length === 1 ? questions[0] : undefined);
    throw pluginFault(
      plugin,
      `${describeThrown(thrown, plugin)} when asked about ${name(of, questions, about)}`,
      thrown,
    );
  }
  if (!Array.isArray(values))
    throw pluginFault(plugin, `returned ${show(values)}, not a list with an entry for each of ${questions.length}`);
  if (values.length !== questions.length)
    throw pluginFault(
      plugin,
      `returned ${values.length} entries when asked about ${name(undefined, questions, about)}`,
    );
  for (const [i, value] of values.entries()) {
    const question = questions[i] as Q;
    const fault = about.findFault(value, question);
    if (fault !== undefined)
      throw pluginFault(plugin, `gave ${show(value)} for ${name(question, questions, about)}: ${fault}`);
  }
  return values;
}

/** The first question that fails on its own; undefined if none does. */
async function findCulprit<Q>(
  ask: Asked<Q>["ask"],
  questions: readonly Q[],
): Promise<{ question: Q; thrown: unknown } | undefined> {
  if (questions.length === 1) return undefined;
  for (const question of questions) {
    try {
      await ask([question]);
    } catch (thrown) {
      return { question, thrown };
    }
  }
  return undefined;
}

function name<Q>(one: Q | undefined, all: readonly Q[], { getSlate, describe }: About<Q>): string {
  if (one !== undefined) return `slate ${getSlate(one)}${describe ? ` (${describe(one)})` : ""}`;
  const slates = [...new Set(all.map(getSlate))];
  const named = slates.slice(0, 3).join(", ");
  return (
    `${all.length} questions on ${slates.length === 1 ? "slate" : "slates"} ` +
    `${named}${slates.length > 3 ? ", …" : ""}`
  );
}

/** A value as shown in a message: shortened; NaN and functions are named. */
export function show(value: unknown): string {
  if (typeof value === "number" || value === undefined) return String(value);
  if (typeof value === "function") return "a function";
  try {
    const text = JSON.stringify(value, (_key, v: unknown) =>
      typeof v === "number" && !Number.isFinite(v) ? String(v) : v,
    );
    return text === undefined ? typeof value : text.length > 120 ? `${text.slice(0, 117)}...` : text;
  } catch {
    return Object.prototype.toString.call(value);
  }
}
