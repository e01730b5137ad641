/**
 * Planted cases: what a language model is worth is known, and the combination must find it. Slates of ten; the truth is
 * drawn from softmax(known_j + unknown_j), known = the evidence, unknown = what only a perfect language model sees.
 */
import { describe, expect, it } from "vitest";
import { Rng } from "../../../src/core/rng.ts";
import { softmax } from "../../../src/eval/choice-model.ts";
import { gradedNdcg } from "../../../src/eval/metrics.ts";
import { type Combination, type CombinationExample, combine, orderHelps } from "../../../src/policy/combination.ts";
import {
  directScores,
  fitFolds,
  fitPrior,
  orderBy,
  outOfSample,
  type Prior,
  type PriorExample,
} from "../../../src/policy/prior.ts";

const size = 10;
const terms = { likelihood: false, evidence: true };

/** The candidate where the running sum of chances exceeds u. */
function draw(chances: readonly number[], u: number): number {
  let sum = 0;
  const at = chances.findIndex((p) => {
    sum += p;
    return u < sum;
  });
  return at < 0 ? chances.length - 1 : at;
}

/**
 * @param spreads of what evidence and language model know, nats @param tell the likelihood from what there is to know
 */
function plant(
  n: number,
  seed: number,
  spreads: (slate: number) => { readonly known: number; readonly unknown: number },
  tell: (unknown: number, rng: Rng) => number,
): CombinationExample[] {
  const rng = Rng.of(seed, "planted");
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - rng.uniform())) * Math.cos(2 * Math.PI * rng.uniform());
  return Array.from({ length: n }, (_, i) => {
    const s = spreads(i);
    const known = Array.from({ length: size }, () => s.known * normal());
    const unknown = Array.from({ length: size }, () => s.unknown * normal());
    const chances = softmax(known.map((k, j) => k + (unknown[j] as number)));
    const chosen = draw(chances, rng.uniform());
    return {
      scores: known.map((_, j) => -j),
      evidence: known,
      logLikelihood: unknown.map((u) => tell(u, rng)),
      truth: known.map((_, j) => (j === chosen ? 1 : 0)),
      user: i >> 1, // two slates a user
      fold: (i >> 1) % 5,
    };
  });
}

const noise = (_: number, rng: Rng): number => 3 * (rng.uniform() - 0.5);
const truthful = (unknown: number): number => unknown - 8;
const bootstrap = { resamples: 1000, seed: 1 };
const fitBase = (examples: readonly CombinationExample[]) => fitFolds(examples, 5, (some) => fitPrior(some, terms));
const combineOnBase = (examples: readonly CombinationExample[]): Combination =>
  combine(examples, fitBase(examples), bootstrap);

function n5(prior: Prior, examples: readonly PriorExample[]): number {
  const values = examples.map((e) =>
    gradedNdcg(
      orderBy(directScores(prior, e, e.logLikelihood)).map((j) => e.truth[j] as number),
      5,
    ),
  );
  return values.reduce((a, b) => a + b, 0) / values.length;
}

describe("a language model on top of the prior", () => {
  const even = () => ({ known: 1, unknown: 1 });

  it("that knows nothing has weight exactly 0: orders, scores and priors are the prior's own", () => {
    let refused = 0;
    for (let seed = 0; seed < 20; seed++) {
      const examples = plant(600, seed, even, noise);
      const base = fitBase(examples);
      const { form, priors } = combine(examples, base, bootstrap);
      if (form !== "none") continue;
      refused++;
      expect(priors).toBe(base);
      expect(priors.whole.likelihood).toBe(0);
      expect(outOfSample(priors, examples)).toEqual(outOfSample(base, examples));
    }
    expect(refused).toBeGreaterThanOrEqual(18); // three tests at 2.5 % each, minus what costs N@5
  }, 60_000);

  it("that knows nothing is not accepted because the prior is badly scaled", () => {
    const examples = plant(2000, 3, even, noise);
    const shout = (p: Prior): Prior => ({ ...p, evidence: 4 * p.evidence });
    const base = fitBase(examples);
    const loud = { whole: shout(base.whole), byFold: base.byFold.map(shout) };
    expect(combine(examples, loud, bootstrap)).toMatchObject({ form: "none", priors: { whole: { likelihood: 0 } } });
  });

  it("that points the wrong way has weight 0", () => {
    const { form } = combineOnBase(plant(2000, 4, even, (u) => -u));
    expect(form).toBe("none");
  });

  it("that sees what the evidence does not gains what there is to gain", () => {
    const examples = plant(3000, 5, even, truthful);
    const { form, priors, gain } = combineOnBase(examples);
    // The truth is drawn with weight 1 for both.
    expect(form).toBe("likelihood");
    expect(priors.whole.likelihood).toBeCloseTo(1, 0);
    expect(priors.whole.evidence).toBeCloseTo(1, 0);
    expect(gain.ciLow).toBeGreaterThan(0.2);
    const fresh = plant(3000, 6, even, truthful);
    const best: Prior = { likelihood: 1, place: [0], preRank: 0, evidence: 1 };
    expect(n5(priors.whole, fresh)).toBeGreaterThan(n5(best, fresh) - 0.003);
    expect(n5(priors.whole, fresh)).toBeGreaterThan(n5(fitBase(examples).whole, fresh) + 0.1);
  });

  it("that sees something where the evidence is weak, and shouts elsewhere, is trusted there alone", () => {
    // A third of the slates: evidence of spread .2 and a truthful model; the others: evidence of spread 2, and noise.
    const weak = (i: number): boolean => i % 3 === 0;
    const planted = (n: number, seed: number): CombinationExample[] => {
      const whispers = plant(n, seed, () => ({ known: 0.2, unknown: 1 }), truthful);
      const shouts = plant(
        n,
        seed + 100,
        () => ({ known: 2, unknown: 0.01 }),
        (_, rng) => 6 * (rng.uniform() - 0.5),
      );
      return whispers.map((e, i) => (weak(i) ? e : (shouts[i] as CombinationExample)));
    };
    const examples = planted(3000, 7);
    const { form, priors } = combineOnBase(examples);
    expect(form).toBe("gated");
    const [atWeak, , atStrong] = priors.whole.gate?.factors ?? [];
    expect(atWeak).toBe(1);
    expect(atStrong).toBeLessThan(0.1);
    const fresh = planted(3000, 8);
    const base = fitBase(examples).whole;
    const strong = fresh.filter((_, i) => !weak(i));
    expect(n5(priors.whole, fresh)).toBeGreaterThan(n5(base, fresh) + 0.04);
    expect(n5(priors.whole, strong)).toBeGreaterThan(n5(base, strong) - 0.003);
  });

  it("that was good on the slates it was calibrated on and is stale now is judged by how it is now", () => {
    const before = plant(3000, 9, even, truthful);
    const trusted = fitPrior(before, { likelihood: true, evidence: true });
    expect(trusted.likelihood).toBeGreaterThan(0.8);
    // A tenth of what it knew is left, in as loud a voice.
    const stale = (u: number, rng: Rng): number => 0.1 * u + 3.4 * (rng.uniform() - 0.5);
    const now = plant(3000, 10, even, stale);
    const { priors } = combineOnBase(now);
    expect(priors.whole.likelihood).toBeLessThan(0.25);
    const next = plant(3000, 11, even, stale);
    const base = n5(fitBase(now).whole, next);
    expect(n5(trusted, next)).toBeLessThan(base - 0.02); // what blind trust costs
    expect(n5(priors.whole, next)).toBeGreaterThan(base - 0.003);
    const gone = plant(3000, 12, even, noise);
    expect(combineOnBase(gone).form).toBe("none");
  });

  it("comes out the same twice", () => {
    const examples = plant(400, 13, even, truthful);
    expect(combineOnBase(examples)).toEqual(combineOnBase(examples));
  });
});

describe("the order that came in", () => {
  /** The stage before knows `share` of what the evidence does not; its order and scores say so. */
  const ordered = (n: number, seed: number, share: number): CombinationExample[] =>
    plant(n, seed, () => ({ known: 1, unknown: 1 }), truthful).map((e) => {
      const rng = Rng.of(seed, "order", e.user);
      const said = e.logLikelihood.map((l) => share * l + (1 - share) * rng.uniform());
      const by = orderBy(said);
      const take = (values: readonly number[]): number[] => by.map((j) => values[j] as number);
      return {
        ...e,
        scores: take(said),
        evidence: take(e.evidence ?? []),
        logLikelihood: take(e.logLikelihood),
        truth: take(e.truth),
      };
    });

  it("is part of the prior where it knows more than the evidence", () => {
    const examples = ordered(1500, 4, 1);
    expect(orderHelps(examples, 5, bootstrap)).toBe(true);
    const [alone, both] = [false, true].map((order) => fitPrior(examples, { ...terms, order }));
    expect(n5(both as Prior, ordered(1500, 5, 1))).toBeGreaterThan(n5(alone as Prior, ordered(1500, 5, 1)) + 0.05);
  });

  it("is left out where it knows nothing: the prior is the evidence, and costs nothing", () => {
    let kept = 0;
    for (let seed = 0; seed < 10; seed++) kept += Number(orderHelps(ordered(600, seed, 0), 5, bootstrap));
    expect(kept).toBeLessThanOrEqual(1); // a one-sided test at 2.5 %
    const examples = ordered(600, 0, 0);
    const prior = fitPrior(examples, { ...terms, order: false });
    expect([prior.preRank, ...prior.place]).toEqual(new Array(size + 1).fill(0));
    for (const e of examples) expect(orderBy(directScores(prior, e, undefined))).toEqual(orderBy(e.evidence ?? []));
  });

  it("left out, a fit starts from the evidence's weight of the centre and keeps positions at 0", () => {
    const centre = fitPrior(ordered(600, 1, 0), { ...terms, order: false });
    const prior = fitPrior(ordered(600, 2, 0), { ...terms, order: false }, centre);
    expect(prior.evidence).toBeGreaterThan(0);
    expect(prior.place).toEqual(new Array(size).fill(0));
  });
});
