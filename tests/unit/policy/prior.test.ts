import { describe, expect, it } from "vitest";
import { Rng } from "../../../src/core/rng.ts";
import {
  addLikelihood,
  computePrior,
  directScores,
  fitFolds,
  fitPrior,
  likelihoodViews,
  orderBy,
  outOfSample,
  standardise,
} from "../../../src/policy/prior.ts";

/**
 * Slates of four whose target follows the likelihood with probability .7,
 * else stands at a position by prior .4 .3 .2 .1.
 */
function slates(n: number, seed: number) {
  const rng = Rng.of(seed, "slates");
  return Array.from({ length: n }, (_, i) => {
    const logLikelihood = Array.from({ length: 4 }, () => -8 * rng.uniform());
    const u = rng.uniform();
    const byPlace = u < 0.4 ? 0 : u < 0.7 ? 1 : u < 0.9 ? 2 : 3;
    const chosen = rng.uniform() < 0.7 ? (orderBy(logLikelihood)[0] as number) : byPlace;
    const truth = [0, 1, 2, 3].map((j) => (j === chosen ? 1 : 0));
    return { scores: [4, 3, 2, 1], logLikelihood, truth, fold: i % 5 };
  });
}

const terms = { likelihood: true, evidence: false };

describe("prior", () => {
  it("learns that likelihood helps and that earlier positions are likelier", () => {
    const prior = fitPrior(slates(2000, 1), terms);
    expect(prior.likelihood).toBeGreaterThan(0.3);
    const p = computePrior(prior, { scores: [4, 3, 2, 1] });
    expect(orderBy(p)).toEqual([0, 1, 2, 3]);
  });

  it("without the language model has no weight for it", () => {
    expect(fitPrior(slates(500, 2), { ...terms, likelihood: false }).likelihood).toBe(0);
  });

  it("cross-fitted scores come from priors that never saw their user's fold", () => {
    const all = slates(300, 3);
    const scores = outOfSample(
      fitFolds(all, 5, (examples) => fitPrior(examples, terms)),
      all,
    );
    const withoutFold0 = fitPrior(
      all.filter((e) => e.fold !== 0),
      terms,
    );
    expect(scores[0]).toEqual(directScores(withoutFold0, all[0] as (typeof all)[number], all[0]?.logLikelihood));
  });

  it("fits slates of different sizes, with a weight for every position of the largest", () => {
    const short = slates(200, 4).map((e) => ({
      ...e,
      scores: [2, 1],
      logLikelihood: e.logLikelihood.slice(0, 2),
      truth: e.truth.slice(0, 2).some((t) => t > 0) ? e.truth.slice(0, 2) : [0.5, 0.5],
    }));
    const mixed = fitPrior([...short, ...slates(200, 5)], terms);
    expect(mixed.place).toHaveLength(4);
    expect(fitPrior([...slates(200, 5), ...short], terms).place[3]).toBeCloseTo(mixed.place[3] as number, 9);
    expect(fitPrior(short, terms, mixed).place).toHaveLength(4); // a position no slate has keeps the centre's weight
    expect(fitPrior(short, terms, mixed).place[3]).toBeCloseTo(mixed.place[3] as number, 9);
  });

  it("shares weights among far positions, so that a hundred candidates are fitted in a moment", () => {
    // The truth is at position 0 to 9 in 90 % of slates, else anywhere: far positions are alike, near ones are not.
    const rng = Rng.of(6, "wide slates");
    const wide = Array.from({ length: 400 }, () => {
      const at = rng.uniform() < 0.9 ? rng.int(10) : rng.int(100);
      const scores = Array.from({ length: 100 }, (_, j) => -j);
      return { scores, truth: scores.map((_, j) => (j === at ? 1 : 0)) };
    });
    const alone = { likelihood: false, evidence: false };
    const prior = fitPrior(wide, alone);
    expect(prior.place).toHaveLength(100);
    // 10 weights of their own, then 10-14, 15-19, 20-29, 30-49, 50-74, 75-99.
    expect(new Set(prior.place).size).toBe(16);
    expect([prior.place[10], prior.place[20], prior.place[75]]).toEqual([
      prior.place[14],
      prior.place[29],
      prior.place[99],
    ]);
    // From that prior as the centre, the same slates lead nowhere far.
    const again = fitPrior(wide, alone, prior);
    again.place.forEach((weight, j) => {
      expect(weight).toBeCloseTo(prior.place[j] as number, 0);
    });
  });

  it("has no negative weight for a likelihood that points the wrong way", () => {
    const inverted = slates(500, 7).map((e) => ({ ...e, logLikelihood: e.logLikelihood.map((l) => -l) }));
    expect(fitPrior(inverted, terms).likelihood).toBe(0);
  });

  it("weighs the likelihood by the spread of the prior, and its views", () => {
    // Spread of [1, -1] is 1, of [3, -3] 3: the first is in the bin up to 2, weight .4, the second beyond it,
    // weight .2.
    const gated = { likelihood: 0.4, gate: { upTo: [2], factors: [1, 0.5] } };
    expect(addLikelihood(gated, [1, -1], [-2, -1])).toEqual([1 - 0.8, -1 - 0.4]);
    expect(addLikelihood(gated, [3, -3], [-2, -1])).toEqual([3 - 0.4, -3 - 0.2]);
    expect(addLikelihood(gated, [3, -3], undefined)).toEqual([3, -3]);
    // Ranks 2, 1: -log2(3), -1; the second leads by 1.
    expect(likelihoodViews([-2, -1])).toEqual({ standardised: [-1, 1], rank: [-Math.log2(3), -1], margin: [0, 1] });
    const views = { standardised: 0.5, rank: 2, margin: 3 };
    const [first, second] = addLikelihood({ likelihood: 1, views }, [0, 0], [-2, -1]);
    expect(first).toBeCloseTo(-2 - 0.5 - 2 * Math.log2(3), 12);
    expect(second).toBeCloseTo(-1 + 0.5 - 2 + 3, 12);
  });

  it("keeps the input order on ties, and standardises equal scores to zero", () => {
    expect(orderBy([1, 2, 2, 1])).toEqual([1, 2, 0, 3]);
    expect(standardise([5, 5, 5])).toEqual([0, 0, 0]);
  });
});
