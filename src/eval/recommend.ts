/**
 * Recommends a system to deploy. It is chosen on validation among the systems that `gr2 serve` supports, including
 * those without a language model: the cheapest of those that do not differ significantly from the best. The best of
 * several is partly best by luck, so its paired interval over users allows for as many comparisons as it has rivals
 * (Bonferroni: level 1 − .05 / rivals). The gain is measured on test. Test results choose nothing, with one exception:
 * a language model that is significantly worse there than the best without one is not recommended. metrics.json, the
 * report, the command line and the service show this sentence and these numbers.
 */
import { type BootstrapOptions, PairedBootstrap } from "./bootstrap.ts";
import { costClasses, findSystem, type System } from "./systems.ts";
import type { ComparisonRow, MetricRow } from "./table.ts";

export interface Recommendation {
  /** To deploy. */
  readonly system: string;
  /**
   * The best on validation; differs from `system` if that is cheaper and not significantly worse, or if this one is
   * significantly worse on test.
   */
  readonly leader: string;
  /** N@5 of leader minus system on validation, paired; the interval's level allows for all comparisons. */
  readonly margin: { readonly delta: number; readonly ci_low: number; readonly ci_high: number };
  /** The best on validation without a language model, and the best with one. */
  readonly without_model: string;
  readonly with_model?: string;
  /** N@5 on test, slates with the true item: `system` over the input order. */
  readonly over_ranker: ComparisonRow;
  /** The same of all slates, where a miss counts as a miss. */
  readonly end_to_end: ComparisonRow & { readonly value: number };
  /** N@5 on test, slates that hold the true item: `with_model` over `without_model`. */
  readonly language_model?: ComparisonRow;
  /** The verdict in words. */
  readonly sentence: string;
}

/** N@5 of a system on each validation slate. */
export interface Judged {
  readonly system: string;
  readonly values: readonly number[];
  /** Its language model has weight 0, so none of its value is due to the model. */
  readonly silent?: boolean;
}

export type Choice = Pick<Recommendation, "system" | "leader" | "margin" | "without_model" | "with_model">;

/**
 * @param users user row of each validation slate
 * @param judged systems that cannot be served are ignored
 */
export function choose(
  users: readonly number[],
  judged: readonly Judged[],
  bootstrap: Partial<BootstrapOptions> = {},
): Choice {
  const rivals = judged.flatMap(({ system: name, values, silent = false }) => {
    const system = findSystem(name);
    const mean = values.reduce((sum, v) => sum + v, 0) / Math.max(1, values.length);
    return system?.servable ? [{ system, values, mean, silent }] : [];
  });
  const best = (of: (system: System, silent: boolean) => boolean): number =>
    rivals.reduce(
      (top, r, i) => (of(r.system, r.silent) && (top < 0 || r.mean > (rivals[top]?.mean ?? 0)) ? i : top),
      -1,
    );
  const leader = best(() => true);
  const level = 1 - 0.05 / Math.max(1, rivals.length - 1);
  const paired = new PairedBootstrap(users, rivals, { ...bootstrap, level });
  const rankCost = (i: number): number => costClasses.indexOf(rivals[i]?.system.cost ?? "reasoning");
  const chosen = rivals
    .map((_, i) => i)
    .sort((a, b) => rankCost(a) - rankCost(b) || (rivals[b]?.mean ?? 0) - (rivals[a]?.mean ?? 0) || a - b)
    .find((i) => i === leader || paired.compare(leader, i).ciLow <= 0);
  const findName = (i: number | undefined): string | undefined => rivals[i ?? -1]?.system.name;
  const [system, first, without] = [findName(chosen), findName(leader), findName(best((s) => s.stage === undefined))];
  if (!system || !first || !without) throw new RangeError("there is no servable system without a language model");
  const withModel = findName(best((s, silent) => s.stage !== undefined && !silent));
  const { delta, ciLow, ciHigh } = paired.compare(leader, chosen ?? leader);
  return {
    system,
    leader: first,
    margin: { delta, ci_low: ciLow, ci_high: ciHigh },
    without_model: without,
    ...(withModel ? { with_model: withModel } : {}),
  };
}

/** The chosen system's gains, from the results on test. */
export function recommend(
  choice: Choice,
  rows: readonly MetricRow[],
  comparisons: readonly ComparisonRow[],
): Recommendation {
  const compared = (system: string, baseline: string, slice: ComparisonRow["slice"]): ComparisonRow | undefined =>
    comparisons.find((c) => c.system === system && c.baseline === baseline && c.slice === slice && c.metric === "N@5");
  const { with_model, without_model } = choice;
  const system = failsOnTest(choice, compared(choice.system, without_model, "conditional"))
    ? without_model
    : choice.system;
  const over = compared(system, "prerank", "conditional");
  if (!over) throw new RangeError(`${system} is not compared with the pre-rank`);
  const all = compared(system, "prerank", "end_to_end") ?? over; // without misses, all slates are conditional
  const value = rows.find((r) => r.system === system && r.slice === all.slice && r.metric === "N@5")?.value ?? 0;
  const model = with_model === undefined ? undefined : compared(with_model, without_model, "conditional");
  return {
    ...choice,
    system,
    over_ranker: over,
    end_to_end: { ...all, value },
    ...(model ? { language_model: model } : {}),
    sentence: conclude({ ...choice, system }, over, model),
  };
}

/** Whether the choice has a language model and is significantly worse on test than the best without one. */
const failsOnTest = ({ system }: Choice, against: ComparisonRow | undefined): boolean =>
  findSystem(system)?.stage !== undefined && against !== undefined && against.ci_high < 0;

/** The verdict in one plain sentence. */
function conclude(choice: Choice, over: ComparisonRow, model: ComparisonRow | undefined): string {
  const { system, leader, without_model } = choice;
  const isModel = findSystem(system)?.stage !== undefined;
  const gain = model ? formatGain(model) : "";
  if (over.ci_high < 0)
    return `Keep your own order: ${system}, the best on validation, is worse on test (${formatGain(over)}).`;
  if (over.ci_low <= 0)
    return `Keep your own order: nothing is measurably better on test (${system}, the best choice on validation: ${formatGain(over)}).`;
  if (!isModel && model?.system === leader && model.ci_high < 0)
    return `Deploy ${system}: ${leader} led on validation, but is worse on test (${gain} against ${without_model}).`;
  if (!isModel)
    return model && model.ci_low > 0
      ? `Deploy ${system}: on validation the language model added nothing measurable to it, though on test it did (${model.system}: ${gain}).`
      : `Deploy ${system}: the language model adds nothing measurable here${model ? ` (${model.system}: ${gain})` : ""}.`;
  if (model?.system === system && model.ci_low > 0)
    return `Deploy ${system}: the language model adds ${gain} over ${without_model}.`;
  return `Deploy ${system}: the language model led on validation; on test its difference to ${without_model} (${gain}) is not significant.`;
}

/** +.0081 [.0017, .0150] N@5 */
export const formatGain = (c: Pick<ComparisonRow, "delta" | "ci_low" | "ci_high">): string =>
  `${signed(c.delta)} [${signed(c.ci_low)}, ${signed(c.ci_high)}] N@5`;

const signed = (x: number): string => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(4)}`;

/**
 * @param ms model time, in the evaluation's batches; undefined: no model was asked
 * @param tokens read and written
 */
function describeCost(system: string, tokens: number, ms: number | undefined): string {
  if (tokens === 0) return `${system}: no language model, less than 1 ms per request.`;
  const time = ms === undefined ? "" : ` and ${ms < 1 ? "less than 1" : ms.toFixed(ms < 10 ? 1 : 0)} ms of the model`;
  return `${system}: ${Math.round(tokens)} tokens${time} per request.`;
}

/** Stages that only a run with a language model needs. */
const modelStages = ["midtrain", "traces", "sft", "rl"];

/** @param seconds of each stage */
function describeTraining(seconds: Readonly<Record<string, number>>): string {
  const sum = (names: readonly string[]): number => names.reduce((n, s) => n + (seconds[s] ?? 0), 0);
  return `The run took ${minutes(sum(Object.keys(seconds)))}, ${minutes(sum(modelStages))} of it for training the language model.`;
}

const minutes = (s: number): string => (s < 90 ? `${Math.round(s)} s` : `${(s / 60).toFixed(1)} min`);

export interface HeadlineNumber {
  readonly label: string;
  /** What is compared with what. */
  readonly what: string;
  readonly row: ComparisonRow;
}

/** The three numbers shown with a recommendation, all N@5 on test, in display order. */
export function headlineNumbers(r: Recommendation): HeadlineNumber[] {
  const model = r.language_model;
  return [
    { label: "over your ranker", what: `${r.system} over the input order`, row: r.over_ranker },
    ...(model ? [{ label: "by the language model", what: `${model.system} over ${model.baseline}`, row: model }] : []),
    {
      label: "end to end",
      what: `all slates, misses included: ${(r.end_to_end.value - r.end_to_end.delta).toFixed(4)} → ${r.end_to_end.value.toFixed(4)}`,
      row: r.end_to_end,
    },
  ];
}

/** The part of metrics.json used for the headline. */
export interface HeadlineSource {
  readonly recommendation?: Recommendation;
  readonly systems?: readonly {
    readonly name: string;
    readonly prompt_tokens: number;
    readonly answer_tokens: number;
  }[];
  readonly request_ms?: Readonly<Record<string, number>>;
  readonly timings?: Readonly<Record<string, number>>;
}

/** What the recommended system costs, and what the best with a language model would. */
export function describeCosts(source: HeadlineSource): string[] {
  const { recommendation: r, systems: known = [], request_ms = {}, timings = {} } = source;
  if (!r) return [];
  const countTokens = (name: string): number => {
    const s = known.find((k) => k.name === name);
    return s ? s.prompt_tokens + s.answer_tokens : 0;
  };
  const names = [...new Set([r.system, ...(r.with_model ? [r.with_model] : [])])];
  return [...names.map((n) => describeCost(n, countTokens(n), request_ms[n])), describeTraining(timings)];
}
