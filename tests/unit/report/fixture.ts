/** A run folder as a finished default run leaves it, with made-up but plausible numbers; deterministic. */
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Rng } from "../../../src/core/rng.ts";
import { splitByPosition } from "../../../src/data/split.ts";
import { dataStatistics } from "../../../src/data/statistics.ts";
import { recommend } from "../../../src/eval/recommend.ts";
import { findSystem } from "../../../src/eval/systems.ts";
import type { ComparisonRow, MetricRow } from "../../../src/eval/table.ts";
import { writeAtomic, writePrettyJson } from "../../../src/run/files.ts";
import { walkers } from "../synthetic.ts";

export const hostile = `<script>alert("x")</script>&'<img src=https://evil.example/a.png onerror=alert(1)>\u202e\u0007`;

const systems: Record<string, [r1: number, n5: number]> = {
  prerank: [0.1894, 0.4098],
  prior: [0.1901, 0.4131],
  evidence: [0.1899, 0.4161],
  direct: [0.1927, 0.4278],
  direct_other_history: [0.1716, 0.3979],
  sft: [0.1868, 0.4121],
  sft_nothink: [0.189, 0.4184],
  sft_direct: [0.1911, 0.4231],
  rl: [0.1931, 0.4247],
  rl_nothink: [0.1942, 0.4262],
  rl_direct: [0.1935, 0.4281],
  rl_other_thought: [0.1918, 0.4203],
};

const metrics = { "R@1": 0, "R@3": 0.6, "R@5": 0.95, "N@3": 0.55, "N@5": 1, MRR: 0.85 } as const;

const titles = [
  "Toy Story",
  "GoldenEye",
  "Four Rooms",
  "Get Shorty",
  "Copycat",
  "Twelve Monkeys",
  "Babe",
  "Dead Man Walking",
  "Richard III",
  "Seven",
  "The Usual Suspects",
  "Mighty Aphrodite",
  "Il Postino",
  "Mr. Holland's Opus",
  "Braveheart",
  "Taxi Driver",
  "Rumble in the Bronx",
  "The Birdcage",
  "Brothers McMullen",
  "Apollo 13",
].map((t, i) => `${t} (${1990 + (i % 9)})`);

const codeCounts = (most: number): number[] => Array.from({ length: 256 }, (_, i) => Math.round(most * 0.985 ** i));

/** `overrides` replaces whole files, e.g. {"examples.json": []}. Returns the folder. */
export function fixtureRun(overrides: Record<string, unknown> = {}): string {
  const run = join(mkdtempSync(join(tmpdir(), "gr2-report-")), "nano-ml100k");
  const rng = Rng.of(7, "fixture");
  const noise = (scale: number) => (rng.uniform() + rng.uniform() + rng.uniform() - 1.5) * scale;
  const files: Record<string, unknown> = {
    "metrics.json": metricsFile(),
    "examples.json": Array.from({ length: 12 }, (_, i) => example(rng, i)),
    "manifest.json": manifest(),
    "stages/data/statistics.json": dataStatistics(splitByPosition({ ...walkers(60, 90, 24), name: hostile })),
    "stages/sid/report.json": {
      numItems: 1682,
      levels: 2,
      codes: 256,
      uniqueness: 0.9988,
      perLevel: [
        { level: 0, numUsed: 256, usage: 1, perplexity: 201.6, itemsPerCode: codeCounts(40) },
        { level: 1, numUsed: 251, usage: 0.98, perplexity: 237.6, itemsPerCode: codeCounts(22) },
      ],
      neighbourSharing: [
        { depth: 1, shared: 0.53, chance: 0.02 },
        { depth: 2, shared: 0.04, chance: 0.001 },
      ],
    },
    "stages/traces/summary.json": {
      offered: 120,
      accepted: 90,
      meanTries: 1.5,
      acceptance_place_1: 0.875,
      acceptance_place_2: 0.5,
      rejected_wrong_first_choice: 41,
      rejected_not_json: 1204,
    },
    "stages/calibrate/prior.json": {
      withLikelihood: {
        likelihood: 0.61,
        preRank: 0.34,
        evidence: 0,
        place: [0, -0.08, -0.17, -0.21, -0.29, -0.3, -0.41, -0.44, -0.52, -0.6],
      },
    },
    "stages/slates/test.stats.json": { targetPositions: [572, 421, 315, 323, 233, 253, 215, 210, 201, 169] },
    ...overrides,
  };
  for (const [name, content] of Object.entries(files)) writePrettyJson(join(run, name), content);
  const records: object[] = [];
  const log = (stage: string, step: number, values: Record<string, number>) =>
    records.push({ seq: records.length + 1, stage, step, time: 1.79e9 + records.length, values });
  for (let e = 1; e <= 40; e++)
    log("sid", e, { reconstruction: 0.4 * Math.exp(-e / 12) + 0.17, loss: 0.6 * Math.exp(-e / 10) + 0.2 });
  for (let s = 0; s < 900; s++) log("midtrain", s, { loss: 3.2 + 4 * Math.exp(-s / 120) + noise(0.25), gradNorm: 1 });
  for (let s = 0; s < 180; s++) {
    const fall = Math.exp(-s / 40);
    log("sft", s, {
      loss: 2 + fall,
      loss_think: 0.5 + 3 * fall + noise(0.2),
      loss_answer: 1.4 + fall + noise(0.2),
      loss_replay: 3.3 + noise(0.3),
    });
  }
  const rollouts: object[] = [];
  for (let s = 0; s < 60; s++) {
    const firsts = Object.fromEntries(
      Array.from({ length: 10 }, (_, k) => [
        `first_choice_${k + 1}`,
        [0.22, 0.17, 0.13, 0.1, 0.09, 0.08, 0.07, 0.06, 0.04, 0.04][k] as number,
      ]),
    );
    log("rl", s, {
      reward: 0.01 + 0.0008 * s + noise(0.02),
      valid_rate: 1 - 0.004 * Math.exp(-s / 9) - Math.max(0, noise(0.003)),
      identity_rate: 0.03 + 0.02 * Math.exp(-s / 20) + Math.abs(noise(0.01)),
      truncated_share: 0.002,
      zero_variance_share: 0.12 + noise(0.06),
      reward_ranking: 0.0005 * s + noise(0.01),
      reward_format: 0.02 + 0.0003 * s + noise(0.005),
      reward_invalid: -0.004 * Math.exp(-s / 9),
      kendall_tau: 0.6 - 0.001 * s + noise(0.02),
      length_mean: 40 + noise(2),
      entropy_think: 0.5 * Math.exp(-s / 30) + 0.3,
      entropy_answer: 0.4 * Math.exp(-s / 30) + 0.3,
      logprobGapMean: 1e-7,
      logprobGapMax: 2e-6 + Math.abs(noise(1e-6)),
      clip_low_share_think: Math.abs(noise(0.004)),
      clip_high_share_think: Math.abs(noise(0.006)),
      clip_low_share_answer: Math.abs(noise(0.004)),
      clip_high_share_answer: Math.abs(noise(0.006)),
      gradNorm: 0.8 + noise(0.3),
      weight_version_span: 0,
      weight_version_lag: 0,
      ...{ seconds: 2, seconds_sample: 1, seconds_score: 0, seconds_gradient: 0.8, seconds_optimizer: 0.1 },
      ...{ seconds_wire: 0.06, seconds_typescript: 0.04 },
      ...firsts,
    });
    if (s % 10 === 9)
      log("rl", s, {
        validation_ndcg5_think: 0.412 + 0.0002 * s + noise(0.002),
        validation_ndcg5_answer: 0.417 + 0.00015 * s + noise(0.002),
        validation_ndcg5: 0.415,
      });
    for (let g = 0; g < 8; g++) {
      const reward =
        rng.uniform() < 0.02 ? -1 : (Math.floor(rng.uniform() * 19) - 9) / 10 + (rng.uniform() < 0.4 ? 0.2 : 0);
      rollouts.push({
        seq: rollouts.length + 1,
        stage: "rl",
        step: s,
        slate: `s${s}`,
        mode: "think",
        text: "…",
        reward,
      });
    }
  }
  const lines = (values: object[]) => values.map((v) => `${JSON.stringify(v)}\n`).join("");
  writeAtomic(join(run, "metrics.jsonl"), lines(records));
  writeAtomic(join(run, "rollouts.jsonl"), lines(rollouts));
  return run;
}

function metricsFile() {
  const rows: MetricRow[] = [];
  const comparisons: ComparisonRow[] = [];
  for (const slice of ["conditional", "end_to_end"] as const) {
    const scale = slice === "conditional" ? 1 : 0.1945;
    const n = slice === "conditional" ? 2912 : 14970;
    const value = (s: string, m: keyof typeof metrics) => {
      const [r1, n5] = systems[s] as [number, number];
      return scale * (r1 + (n5 - r1) * metrics[m] + (m === "R@5" ? 0.22 : m === "R@3" ? 0.12 : 0));
    };
    for (const system of Object.keys(systems)) {
      for (const metric of Object.keys(metrics) as (keyof typeof metrics)[]) {
        const v = value(system, metric);
        rows.push({ system, slice, metric, value: v, ci_low: v - 0.014 * scale, ci_high: v + 0.014 * scale, n });
        for (const baseline of ["prerank", "prior", "evidence"]) {
          if (baseline === system) continue;
          const base = value(baseline, metric);
          const delta = v - base;
          const half = 0.0075 * scale;
          comparisons.push({
            system,
            baseline,
            slice,
            metric,
            delta,
            relative: delta / base,
            ci_low: delta - half,
            ci_high: delta + half,
            p: Math.abs(delta) > half ? 0.0002 : 0.31,
            n,
          });
        }
      }
    }
  }
  const health: Record<string, number> = { sid_uniqueness: 0.9988, valid_rate: 0.9966, identity_rate: 0.041 };
  for (const s of ["sft", "sft_nothink", "rl", "rl_nothink"]) {
    Object.assign(health, {
      [`${s}_valid_rate`]: s === "sft" ? 0.9966 : 1,
      [`${s}_identity_rate`]: 0.041,
      [`${s}_kendall_tau`]: 0.62,
      [`${s}_tokens`]: s.includes("no") ? 21 : 74,
    });
  }
  const timings = {
    data: 1.6,
    embed: 31.2,
    sid: 7.2,
    midtrain: 214.3,
    slates: 12.4,
    traces: 3.9,
    calibrate: 21.9,
    sft: 64.7,
    rl: 127.9,
    evaluate: 81.9,
  };
  const margin = { delta: 0, ci_low: 0, ci_high: 0 };
  const choice = {
    system: "rl_direct",
    leader: "rl_direct",
    margin,
    without_model: "evidence",
    with_model: "rl_direct",
  };
  return {
    schema: "gr2.metrics/2",
    run: "nano-ml100k",
    config_hash: "768c32499031a0ca",
    seed: 0,
    rows,
    comparisons,
    health,
    timings,
    selected: { system: "rl_direct", validation: { rl_direct: 0.4301, evidence: 0.42 } },
    recommendation: recommend(choice, rows, comparisons),
    systems: Object.keys(systems).flatMap((name) => {
      const system = findSystem(name);
      if (!system) return [];
      const { kind, servable, cost, description, stage } = system;
      const tokens = stage ? { prompt_tokens: 61.4, answer_tokens: 21 } : { prompt_tokens: 0, answer_tokens: 0 };
      return [{ name, kind, servable, cost, description, ...tokens }];
    }),
    request_ms: { rl_direct: 3.21 },
  };
}

function example(rng: Rng, index: number) {
  const items = rng.shuffle([...titles.keys()]);
  const candidates = items.slice(0, 10).map((i, k) => ({
    title: index === 0 && k === 0 ? hostile : (titles[i] as string),
    sid: `<s_a_${i}><s_b_${k}>`,
    prerank: k + 1,
  }));
  const before = candidates.map((_, k) => k);
  const target = rng.int(10);
  const jump = index % 3 === 2 ? -3 : 3.5; // two gain, one loses
  const after = [...before].sort(
    (a, b) => a - (a === target ? jump : 0) - (b - (b === target ? jump : 0)) || rng.uniform() - 0.5,
  );
  return {
    slate: `slate-${index}`,
    system: "rl_direct",
    history: items.slice(10, 17).map((i) => titles[i] as string),
    candidates,
    target,
    before,
    after,
    reasoning: `pattern: crime, thriller; recent <s_a_3><s_b_9> [${titles[9]}] leads to <s_a_41><s_b_7> [${titles[10]}]\ncomplement: same director, same years\nchoice: <s_a_7><s_b_1> [${candidates[target]?.title}]${index === 0 ? hostile : ""}`,
  };
}

function manifest() {
  const peaks = {
    data: 0.31,
    embed: 1.1,
    sid: 0.9,
    midtrain: 2.4,
    slates: 1.2,
    traces: 0.6,
    calibrate: 2.1,
    sft: 2.6,
    rl: 2.9,
    evaluate: 2.5,
  };
  return {
    schema: 1,
    run: "nano-ml100k",
    state: "finished",
    created: "2026-11-23T03:23:48.958Z",
    updated: "2026-11-23T03:33:48.958Z",
    command: ["pipeline"],
    config_hash: "768c32499031a0ca",
    seed: 0,
    code: { revision: "35cbb596e181928be6d6a6d205d497ffc3a83c7f", dirty: false },
    data: { "ml-100k": "5efe7c56d55154ad3015f40823ce87c29ffbb5c6" },
    versions: { node: "20.20.2", python: "3.11.7", torch: "2.13.0", vega: "6.4.0" },
    hardware: { platform: "linux 6.18 x64", cpu: "AMD EPYC", cores: 2, memory_bytes: 25276502016, device: "cpu" },
    stages: Object.fromEntries(
      Object.entries(peaks).map(([name, gib]) => [
        name,
        {
          state: "finished",
          key: name.padEnd(64, "0"),
          inputs: {},
          outputs: {},
          seconds: 1,
          peak_bytes: gib * 2 ** 30,
          started: "",
          cached: false,
        },
      ]),
    ),
  };
}
