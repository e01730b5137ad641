/** Which plots the report shows, and their captions. A plot whose data a run lacks is left out. */
import { isPolicy } from "../eval/systems.ts";
import { alarmHistory } from "../rl/health.ts";
import type { ReportData } from "./data.ts";
import { type Html, html } from "./html.ts";
import * as plots from "./plots.ts";
import { healthTable, worthTable } from "./sections.ts";

type Spec = Record<string, unknown>;

export async function figure(title: string, spec: Spec | undefined, caption = "", wide = false): Promise<Html> {
  if (!spec) return html``;
  const svg = await plots.plot(spec, title);
  return html`<figure class="card ${wide ? "wide" : ""}"><h3>${title}</h3>${svg}${caption !== "" && html`<figcaption>${caption}</figcaption>`}</figure>`;
}

/** A heading with its figures; nothing if every figure is missing. */
export function section(title: string, lead: string, figures: readonly Html[]): Html {
  if (figures.every((f) => f.markup === "")) return html``;
  return html`<section><h2>${title}</h2><p class="lead">${lead}</p><div class="grid">${figures}</div></section>`;
}

/** Values of one stage's metrics over its steps; `names` maps metric names to the names shown. */
function curve(data: ReportData, stage: string, names: Readonly<Record<string, string>>): plots.Point[] {
  return data.records.flatMap((r) =>
    r.stage !== stage
      ? []
      : Object.entries(names).flatMap(([name, series]) => {
          const value = r.values[name];
          return typeof value === "number" && Number.isFinite(value) ? [{ step: r.step, value, series }] : [];
        }),
  );
}

const drawn = (points: readonly plots.Point[], options: Parameters<typeof plots.lines>[1]): Spec | undefined =>
  points.length > 1 ? plots.lines(points, options) : undefined;

export async function comparisonFigure(data: ReportData): Promise<Html> {
  const chosen = data.metrics.comparisons.filter(
    (c) => c.baseline === "prerank" && c.slice === "conditional" && c.system !== "prerank",
  );
  const systems = [...new Set(chosen.map((c) => c.system))];
  const order = [true, false].flatMap((own) => systems.filter((s) => isPolicy(s, data.metrics.systems) === own));
  const panel = (metric: string): Promise<Html> => {
    const own = chosen.filter((c) => c.metric === metric);
    return figure(metric, own.length > 0 ? plots.forest(own, order) : undefined);
  };
  return section(
    "Against the pre-rank",
    "Paired differences over users with 95 % intervals, on slates whose candidates include the true item. " +
      "Green: above zero; red: below; grey: the interval includes zero.",
    await Promise.all(["N@5", "R@1", "R@5", "MRR"].map(panel)),
  );
}

export async function trainingFigures(data: ReportData): Promise<Html> {
  const sftParts = { loss_think: "reasoning", loss_answer: "ranking", loss_replay: "replay" };
  const sft = curve(data, "sft", sftParts);
  const byMode = {
    validation_ndcg5_think: "with reasoning",
    validation_ndcg5_answer: "at once",
    validation_ndcg5_prerank: "pre-rank",
  };
  const validation = curve(data, "rl", byMode);
  const sftValidation = curve(data, "sft", byMode);
  return section("Training", "Thin lines are single steps, thick lines are moving averages.", [
    await figure(
      "Mid-training loss",
      drawn(curve(data, "midtrain", { loss: "loss" }), { y: "loss per token", smooth: true }),
    ),
    await figure(
      "SFT loss",
      drawn(sft.length > 1 ? sft : curve(data, "sft", { loss: "loss" }), { y: "loss", smooth: true }),
    ),
    await figure(
      "Validation N@5 during SFT",
      drawn(sftValidation, { y: "N@5, greedy" }),
      "On a fixed sample of validation slates.",
    ),
    await figure("RL reward", drawn(curve(data, "rl", { reward: "reward" }), { y: "mean reward", smooth: true })),
    await figure(
      "Validation N@5 during RL",
      drawn(validation.length > 1 ? validation : curve(data, "rl", { validation_ndcg5: "N@5" }), { y: "N@5, greedy" }),
      "On a fixed sample of validation slates.",
    ),
    await figure("Time of an RL step", drawn(stepSeconds(data), { y: "seconds", smooth: true }), shares(data)),
  ]);
}

const stepParts = {
  seconds_sample: "sampling",
  seconds_score: "scoring",
  seconds_gradient: "forward and backward",
  seconds_optimizer: "optimizer",
  seconds_wire: "wire",
  seconds_typescript: "TypeScript",
};

/** Parts that take no time are left out. */
function stepSeconds(data: ReportData): plots.Point[] {
  const points = curve(data, "rl", stepParts);
  const spent = new Set(points.filter((p) => p.value > 0).map((p) => p.series));
  return points.filter((p) => spent.has(p.series));
}

/** Each part's share of the time of all steps, in words. */
function shares(data: ReportData): string {
  const points = stepSeconds(data);
  const total = points.reduce((sum, p) => sum + p.value, 0);
  const seriesShare = (series: string): number =>
    points.reduce((sum, p) => sum + (p.series === series ? p.value : 0), 0) / total;
  const said = [...new Set(points.map((p) => p.series))].map(
    (s) => `${s} ${(100 * seriesShare(s ?? "")).toFixed(1)} %`,
  );
  return total > 0 ? `Shares of the time: ${said.join(", ")}.` : "";
}

export async function behaviourFigures(data: ReportData): Promise<Html> {
  const rewards = data.rewardGroups.flatMap((g) => g.rewards);
  const rates = curve(data, "rl", { valid_rate: "valid", identity_rate: "input copied", truncated_share: "cut off" });
  const groups = curve(data, "rl", { zero_variance_share: "groups of equal rewards" });
  const nearness = curve(data, "rl", { kendall_tau: "Kendall τ to the input order" });
  const entropy = curve(data, "rl", { entropy_think: "with reasoning", entropy_answer: "at once" });
  const gap = curve(data, "rl", { logprobGapMax: "largest", logprobGapMean: "mean" });
  const parts = curve(data, "rl", {
    reward_ranking: "ranking",
    reward_format: "format bonus",
    reward_invalid: "invalid answers",
    reward_overlong: "overlong",
  });
  const length = curve(data, "rl", { length_mean: "tokens" });
  const clipped = curve(data, "rl", {
    clip_low_share_think: "below, with reasoning",
    clip_high_share_think: "above, with reasoning",
    clip_low_share_answer: "below, at once",
    clip_high_share_answer: "above, at once",
  });
  const gradient = curve(data, "rl", { gradNorm: "norm" });
  const positions = firstChoices(data);
  return section(
    "Policy behaviour",
    "Signs of reward hacking: copied inputs, one favoured position, rewards without variance.",
    [
      await figure(
        "Parts of the reward",
        drawn(parts, { y: "mean of all rollouts", smooth: true }),
        "If only the format bonus rises, the reward is being gamed.",
      ),
      await figure("Valid and copied answers", drawn(rates, { y: "share of rollouts", percent: true })),
      await figure(
        "Groups without a learning signal",
        drawn(groups, { y: "share of groups", percent: true }),
        "Dropped by dynamic sampling.",
      ),
      await figure(
        "Similarity of answers to the input order",
        drawn(nearness, { y: "Kendall τ" }),
        "1 = the input order.",
      ),
      await figure("Length", drawn(length, { y: "tokens per answer", smooth: true })),
      await figure("Entropy", drawn(entropy, { y: "nats per token" }), "Zero: the policy is deterministic."),
      await figure(
        "Sampler and trainer",
        drawn(gap, { y: "difference of log-probs" }),
        "Both have the same weights before each step's first update, so this should be near zero.",
      ),
      await figure(
        "Clipped tokens",
        drawn(clipped, { y: "share of tokens" }),
        "Tokens whose ratio left the trust region; they add no gradient.",
      ),
      await figure("Gradient norm", drawn(gradient, { y: "before clipping", smooth: true })),
      await figure(
        "Rewards",
        rewards.length > 0 ? plots.histogram(rewards, { x: "reward", color: plots.palette.indigo }) : undefined,
        `${rewards.length} rollouts recorded in rollouts.jsonl.`,
      ),
      await figure(
        "Advantages",
        rewards.length > 0
          ? plots.histogram(plots.listAdvantages(data.rewardGroups), {
              x: "advantage within the group",
              color: plots.palette.teal,
            })
          : undefined,
      ),
      await figure(
        "First choice by position",
        positions.length > 0
          ? plots.positions(positions, { y: "share of answers", color: plots.palette.violet, format: ".0%" })
          : undefined,
        "Input position that the policy ranks first, averaged over the last tenth of RL.",
      ),
      healthTable(data),
      alarms(data),
    ],
  );
}

function alarms(data: ReportData): Html {
  const steps = data.records.filter((r) => r.stage === "rl" && r.values.valid_rate !== undefined);
  const raised = alarmHistory(steps);
  if (raised.length === 0) return html``;
  return html`<figure class="card wide"><h3>Alarms</h3><ul>${raised.map(
    (a) => html`<li><strong>${a.name}</strong>, from step ${a.step + 1}: ${a.text}</li>`,
  )}</ul></figure>`;
}

/** Mean of first_choice_1.. over the last tenth of the RL steps. */
function firstChoices(data: ReportData): number[] {
  const steps = data.records.filter((r) => r.stage === "rl" && r.values.first_choice_1 !== undefined);
  const last = steps.slice(-Math.max(1, Math.ceil(steps.length / 10)));
  const shares: number[] = [];
  for (let k = 1; last[0]?.values[`first_choice_${k}`] !== undefined; k++) {
    shares.push(last.reduce((sum, r) => sum + (r.values[`first_choice_${k}`] ?? 0), 0) / last.length);
  }
  return shares;
}

export async function identifierFigures(data: ReportData): Promise<Html> {
  const { sid } = data;
  const levels = (sid?.perLevel ?? []).map((l) => ({
    name: `level ${l.level + 1}`,
    value: l.perplexity / (sid?.codes ?? 1),
    label: `${l.numUsed} of ${sid?.codes} codes`,
  }));
  const perCode = (sid?.perLevel ?? []).flatMap((l) =>
    (l.itemsPerCode ?? []).map((value, i) => ({ step: i + 1, value, series: `level ${l.level + 1}` })),
  );
  const sharing = (sid?.neighbourSharing ?? []).flatMap((n) => [
    { step: n.depth, value: n.shared, series: "nearest neighbours" },
    { step: n.depth, value: n.chance, series: "any two items" },
  ]);
  const unique = sid
    ? `${(100 * sid.uniqueness).toFixed(2)} % of ${sid.numItems} items have a unique semantic ID.`
    : "";
  const fit = curve(data, "sid", { reconstruction: "reconstruction", loss: "loss", uniqueness: "uniqueness" });
  const weights = data.prior?.place ?? [];
  const terms = data.prior
    ? `Weights: likelihood ${data.prior.likelihood.toFixed(3)}, ` +
      `pre-rank score ${data.prior.preRank.toFixed(3)}, evidence ${data.prior.evidence.toFixed(3)}.`
    : "";
  return section("Semantic IDs and calibration", unique, [
    await figure(
      "Code usage per level",
      levels.length > 0 ? plots.bars(levels, { x: "perplexity / codes", color: plots.palette.teal }) : undefined,
      "Perplexity / codes = 1 means every code is used equally often.",
    ),
    await figure(
      "Items per code",
      drawn(perCode, { x: "codes of a level, most used first", y: "items", zero: true }),
      "A flat line means even use; a line that reaches zero early means unused codes.",
    ),
    await figure(
      "Neighbours that share their first codes",
      drawn(sharing, { x: "first codes shared", y: "share of pairs", percent: true }),
      "Pairs of items with the nearest embeddings, compared with random pairs.",
    ),
    await figure("Quantizer", drawn(fit, { y: "value" })),
    await figure(
      "Calibrated weight of each position",
      weights.some((w) => w !== 0)
        ? plots.positions(weights, { y: "log-prior", color: plots.palette.amber, format: "+.2~f" })
        : undefined,
      `Fitted on held-out slates. ${terms}`,
    ),
    await figure(
      "Position of the true item in the pre-rank",
      data.targetPositions.length > 0
        ? plots.positions(data.targetPositions, { y: "test slates", color: plots.palette.grey, format: "~s" })
        : undefined,
    ),
  ]);
}

export async function costFigures(data: ReportData): Promise<Html> {
  const stages = Object.entries(data.metrics.timings).map(([name, value]) => ({ name, value, label: seconds(value) }));
  const memory = Object.entries(data.manifest?.stages ?? {})
    .filter(([, s]) => s.peak_bytes > 0)
    .map(([name, s]) => ({ name, value: s.peak_bytes / 2 ** 30, label: `${(s.peak_bytes / 2 ** 30).toFixed(2)} GiB` }));
  return section("Cost", "Measured when each stage ran.", [
    worthTable(data),
    await figure(
      "Time",
      stages.length > 0 ? plots.bars(stages, { x: "seconds", color: plots.palette.indigo }) : undefined,
    ),
    await figure(
      "Peak memory",
      memory.length > 0
        ? plots.bars(memory, { x: "GiB, orchestrator plus worker", color: plots.palette.violet })
        : undefined,
    ),
  ]);
}

const seconds = (s: number): string =>
  s < 10 ? `${s.toFixed(1)} s` : s < 120 ? `${s.toFixed(0)} s` : `${(s / 60).toFixed(1)} min`;
