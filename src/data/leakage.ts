/**
 * Checks that stop a run if leaked answers would inflate its results. Each throws RunError and lists offenders.
 *
 *   segments         every user's boundaries are ordered and end where the sequence ends
 *   training views   nothing past the allowed segment, and a true prefix of the sequence
 *   prompts          the answer is not among the history items that the rendered prompt shows
 *   slates           answer not in its own visible history (unless repeats are allowed), inside its segment, candidates
 *                    distinct, answer index correct, ids unique and opaque
 *   logged slates    the history ends before the slate was shown, and its end and the choices are within the slate's
 *                    segment
 *   row order        "next row = this row + 1" not above chance
 */
import { RunError } from "../core/errors.ts";
import { countBefore, segmentRange, type TrainingView } from "./split.ts";
import type { Dataset, Segment, SplitDataset } from "./types.ts";

/** The fields of a slate that the checks need (prerank/ owns the type). */
export interface CheckedSlate {
  readonly id: string;
  readonly user: number;
  readonly position: number;
  readonly segment: Segment;
  readonly candidates: readonly number[];
  readonly target: number;
  readonly targetIndex: number;
}

function failIfAny(what: string, offenders: readonly string[], advice?: string): void {
  if (offenders.length === 0) return;
  const shown = offenders.slice(0, 5).join("; ");
  const more = offenders.length > 5 ? `; and ${offenders.length - 5} more` : "";
  throw new RunError(`Leakage check failed: ${what} (${offenders.length}): ${shown}${more}.`, advice ? { advice } : {});
}

/** Boundaries are ordered, within the sequence, and cover all of it. */
export function checkSegments(data: SplitDataset): void {
  const offenders: string[] = [];
  if (data.splits.length !== data.dataset.sequences.length)
    offenders.push(`${data.splits.length} splits for ${data.dataset.sequences.length} users`);
  data.splits.forEach((s, user) => {
    const n = data.dataset.sequences[user]?.items.length ?? -1;
    const ends = [0, s.midtrainEnd, s.rerankEnd, s.validationEnd, s.testEnd];
    const ordered = ends.every((e, k) => Number.isInteger(e) && e >= (ends[k - 1] ?? 0));
    if (!ordered || s.testEnd !== n) offenders.push(`user row ${user}: ${ends.slice(1).join(", ")} of ${n}`);
  });
  failIfAny("segments overlap or do not cover the sequence", offenders);
}

/** A learner with `view` (pre-ranker, contrastive pairs, teacher) sees nothing past the end of `allowed`. */
export function checkTrainingView(
  data: SplitDataset,
  view: Pick<TrainingView, "sequences">,
  allowed: Segment | ((user: number) => Segment),
  consumer: string,
): void {
  const offenders: string[] = [];
  const allowedTo = typeof allowed === "string" ? () => allowed : allowed;
  view.sequences.forEach((seen, user) => {
    const s = data.splits[user];
    const items = data.dataset.sequences[user]?.items;
    const end = s === undefined ? 0 : segmentRange(s, allowedTo(user))[1];
    if (seen.length > end) offenders.push(`user row ${user}: ${seen.length} interactions, allowed ${end}`);
    else if (seen.some((item, k) => items?.[k] !== item)) offenders.push(`user row ${user}: not a prefix`);
  });
  failIfAny(`${consumer} sees interactions past ${typeof allowed === "string" ? allowed : "what it may"}`, offenders);
}

/** A learner with `view` sees nothing of the held-out users. */
export function checkHeldOut(
  view: Pick<TrainingView, "sequences">,
  heldOut: (user: number) => boolean,
  consumer: string,
): void {
  const offenders = view.sequences.flatMap((seen, user) =>
    heldOut(user) && seen.length > 0 ? [`user row ${user}: ${seen.length} interactions`] : [],
  );
  failIfAny(`${consumer} sees users whose slates it judges`, offenders);
}

/** The history shown in a rendered prompt, and the answer it asks for. */
export interface ShownPrompt {
  readonly id: string;
  readonly target: number;
  /** Item rows before the candidates. */
  readonly history: readonly number[];
  /** Item rows of the candidates, if the prompt lists them. */
  readonly candidates: readonly number[];
  /** The slate's candidates, in pre-rank order. */
  readonly expected: readonly number[];
}

/** A prompt shows its answer only as one of the candidates, which are listed completely and in pre-rank order. */
export function checkPrompts(prompts: Iterable<ShownPrompt>, consumer: string): void {
  const offenders: string[] = [];
  for (const p of prompts) {
    if (p.history.includes(p.target)) offenders.push(`${p.id}: the answer is visible in the history`);
    else if (p.candidates.length > 0 && p.candidates.join() !== p.expected.join())
      offenders.push(`${p.id}: candidates differ from the slate's`);
  }
  failIfAny(`prompts of ${consumer} give their answer away`, offenders);
}

/**
 * What a training input of slates of `segment` may see at most: everything before that segment's own stage. Test comes
 * after every choice is made: with `refit` it may use everything before test.
 */
export const allowedFor = (segment: Segment, refit = false): "midtrain" | "rerank" | "validation" => {
  if (segment === "test") return refit ? "validation" : "rerank";
  return segment === "validation" ? "rerank" : "midtrain";
};

/** Slates are consistent with the data and do not show their own answer. */
export function checkSlates(
  data: SplitDataset,
  slates: readonly CheckedSlate[],
  options: { readonly repeats: "unseen" | "allow"; readonly historyLength?: number },
): void {
  const offenders: string[] = [];
  const ids = new Set<string>();
  const problems = (s: CheckedSlate): string | undefined => {
    const items = data.dataset.sequences[s.user]?.items;
    const split = data.splits[s.user];
    if (items === undefined || split === undefined) return `user row ${s.user} does not exist`;
    if (ids.has(s.id)) return "id used twice";
    if (!/^[0-9a-f]{16,64}$/.test(s.id)) return "id is not an opaque hash";
    const [start, end] = segmentRange(split, s.segment);
    if (s.position < start || s.position >= end)
      return `position ${s.position} is outside ${s.segment} [${start}, ${end})`;
    if (items[s.position] !== s.target) return "target is not the item at its position";
    if (new Set(s.candidates).size !== s.candidates.length) return "a candidate appears twice";
    if (s.candidates.indexOf(s.target) !== s.targetIndex) return "targetIndex is wrong";
    if (options.repeats === "allow") return undefined;
    const visible = items.subarray(Math.max(0, s.position - (options.historyLength ?? s.position)), s.position);
    if (visible.includes(s.target)) return "the answer is visible in the history";
    return s.candidates.find((c) => visible.includes(c)) === undefined ? undefined : "a candidate is in the history";
  };
  for (const s of slates) {
    const problem = problems(s);
    if (problem !== undefined) offenders.push(`${s.id} (user row ${s.user}, ${s.segment}): ${problem}`);
    ids.add(s.id);
  }
  failIfAny("bad slates", offenders);
}

/** The fields of a logged slate that the check needs besides the common ones. */
export interface CheckedLoggedSlate extends CheckedSlate {
  readonly time?: number;
  readonly labels?: readonly number[];
}

/**
 * Logged slates are consistent with the data: the history is exactly the user's interactions before the slate's time;
 * the end of the history and all interactions at that time are within the slate's segment. No training view of an
 * earlier stage then contains the choices, and no slate teaches what a later segment tests.
 */
export function checkLoggedSlates(data: SplitDataset, slates: readonly CheckedLoggedSlate[]): void {
  const offenders: string[] = [];
  const ids = new Set<string>();
  const problems = (s: CheckedLoggedSlate): string | undefined => {
    const sequence = data.dataset.sequences[s.user];
    const split = data.splits[s.user];
    if (sequence === undefined || split === undefined) return `user row ${s.user} does not exist`;
    if (ids.has(s.id)) return "id used twice";
    if (!/^[0-9a-f]{16,64}$/.test(s.id)) return "id is not an opaque hash";
    if (s.time === undefined || s.labels === undefined) return "a logged slate needs a time and labels";
    const before = countBefore(sequence.times, s.time);
    if (s.position > before) return `the history contains interactions from ${s.time} on`;
    if (s.position < before) return "the history lacks interactions from before the slate";
    const [start, end] = segmentRange(split, s.segment);
    if (s.position < start || s.position > end)
      return `its history ends at ${s.position}, outside ${s.segment} [${start}, ${end})`;
    if ((sequence.times[end] ?? Number.POSITIVE_INFINITY) <= s.time)
      return `interactions at its time belong to a segment after ${s.segment}`;
    if (new Set(s.candidates).size !== s.candidates.length) return "a candidate appears twice";
    if (s.labels.length !== s.candidates.length) return "labels and candidates differ in number";
    const best = Math.max(...s.labels);
    if (!(best > 0) || s.labels.indexOf(best) !== s.targetIndex)
      return "targetIndex is not the first candidate with the best label";
    return s.candidates[s.targetIndex] === s.target ? undefined : "target is not the item at targetIndex";
  };
  for (const s of slates) {
    const problem = problems(s);
    if (problem !== undefined) offenders.push(`${s.id} (user row ${s.user}, ${s.segment}): ${problem}`);
    ids.add(s.id);
  }
  failIfAny("bad logged slates", offenders);
}

/** Share of consecutive interactions whose row is the previous row + 1, and the share expected by chance. */
export function rowOrderShare(dataset: Dataset): {
  readonly share: number;
  readonly chance: number;
  readonly steps: number;
} {
  let steps = 0;
  let next = 0;
  for (const { items } of dataset.sequences) {
    for (let k = 1; k < items.length; k++) {
      steps++;
      if ((items[k] ?? 0) === (items[k - 1] ?? 0) + 1) next++;
    }
  }
  return { share: steps === 0 ? 0 : next / steps, chance: estimateNextChance(dataset), steps };
}

/** Probability of "+1" when both items are drawn by popularity. */
function estimateNextChance(dataset: Dataset): number {
  const counts = new Float64Array(dataset.items.length + 1);
  let total = 0;
  for (const { items } of dataset.sequences)
    for (const i of items) {
      counts[i] = (counts[i] ?? 0) + 1;
      total++;
    }
  let chance = 0;
  for (let i = 0; i + 1 < counts.length; i++)
    chance += ((counts[i] ?? 0) * (counts[i + 1] ?? 0)) / Math.max(1, total) ** 2;
  return chance;
}

/** Fails if consecutive rows follow each other in sequences: half a point and five standard errors above chance. */
export function checkRowOrder(dataset: Dataset): void {
  const { share, chance, steps } = rowOrderShare(dataset);
  const error = Math.sqrt(Math.max(chance, 1 / Math.max(1, steps)) / Math.max(1, steps));
  if (share - chance > 0.005 && share - chance > 5 * error)
    failIfAny(
      "item rows encode order",
      [`next row = this row + 1 in ${(100 * share).toFixed(2)} % of steps, by chance ${(100 * chance).toFixed(2)} %`],
      "Number item rows by a hash of the item id (data/dataset does).",
    );
}

/** All checks that need only the split. Call before training anything. */
export function checkSplit(data: SplitDataset): void {
  checkSegments(data);
  checkRowOrder(data.dataset);
}
