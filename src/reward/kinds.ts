/**
 * GR2's built-in rewards (GR2 v1 §5, TR), as functions of the labels in the answer's order:
 *
 *   promotion   R_rank = (rank_pre(x*) - rank_re(x*)) / N; for several positives the mean, whatever their labels
 *   ndcg        graded NDCG@k of the answer minus that of the input order (one true item: 1 / log2(rank + 1))
 *   auc         share of (higher label, lower label) pairs in the right order, minus that of the input order
 *   dehacked    ndcg, auc: the answer's own value (TR), nothing subtracted. With subtraction a copy scores 0 anyway, so
 *               the gate of verify.ts would change nothing; promotion is such a difference and stays unchanged
 */
import { gradedAuc, gradedNdcg } from "../eval/metrics.ts";
import type { Reward, Score } from "./reward.ts";

export interface KindOptions {
  readonly kind: "rank-promotion" | "ndcg" | "auc";
  readonly ndcgK: number;
  readonly dehacked: boolean;
}

/** The part of an answer that built-in rewards use. */
interface Judged {
  readonly slate: { readonly labels: readonly number[] };
  readonly order: readonly number[];
}

export interface BuiltInReward extends Reward {
  score(answers: readonly Judged[]): readonly Score[];
}

export const builtInReward = (options: KindOptions): BuiltInReward => ({
  score: (answers) => answers.map(({ slate, order }) => new Measured(slate.labels, order, options)),
});

/** A class, because its sentence is rarely needed and defining an accessor on every object is slow. */
class Measured implements Score {
  readonly value: number;
  readonly #labels: readonly number[];
  readonly #order: readonly number[];
  readonly #options: KindOptions;

  constructor(labels: readonly number[], order: readonly number[], options: KindOptions) {
    this.#labels = labels;
    this.#order = order;
    this.#options = options;
    this.value = measure(labels, inOrder(labels, order), options);
  }

  get because(): string {
    return renderFormula(this.#labels, inOrder(this.#labels, this.#order), this.value, this.#options);
  }
}

const inOrder = (labels: readonly number[], order: readonly number[]): number[] =>
  order.map((i) => labels[i] as number);

/** Mean position of the positives, from 1. */
function meanPosition(labels: readonly number[]): number {
  let [sum, count] = [0, 0];
  for (let i = 0; i < labels.length; i++) {
    if ((labels[i] as number) > 0) {
      sum += i + 1;
      count++;
    }
  }
  return sum / count;
}

/** AUC or NDCG@K of labels in rank order. A slate without two different labels has no pair to get wrong. */
const computeMetric = (labels: readonly number[], { kind, ndcgK }: KindOptions): number =>
  kind === "auc" ? (gradedAuc(labels) ?? 0) : gradedNdcg(labels, ndcgK);

function measure(input: readonly number[], answer: readonly number[], options: KindOptions): number {
  if (options.kind === "rank-promotion") return (meanPosition(input) - meanPosition(answer)) / input.length;
  return computeMetric(answer, options) - (options.dehacked ? 0 : computeMetric(input, options));
}

/** The arithmetic of `measure`. */
function renderFormula(
  input: readonly number[],
  answer: readonly number[],
  value: number,
  options: KindOptions,
): string {
  if (options.kind === "rank-promotion") {
    const mean = (labels: readonly number[]): string => String(Number(meanPosition(labels).toFixed(4)));
    return `(${mean(input)} - ${mean(answer)}) / ${input.length} = ${value.toFixed(4)}`;
  }
  const name = options.kind === "auc" ? "AUC" : `NDCG@${options.ndcgK}`;
  if (options.dehacked) return `${name} ${value.toFixed(4)}`;
  const [from, to] = [computeMetric(input, options), computeMetric(answer, options)];
  return `${name} ${from.toFixed(4)} -> ${to.toFixed(4)} = ${value.toFixed(4)}`;
}
