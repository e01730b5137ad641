/**
 * What a user's reward costs: the same reward (rank promotion) built in, as a TypeScript module and as a Python
 * function, over the answers of a large step: parsed, scored in one call, judged. CPU seconds of this process; for
 * Python wall seconds, because two processes work.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { compileConfig } from "../src/config/load.ts";
import { itemId } from "../src/core/ids.ts";
import { Rng } from "../src/core/rng.ts";
import type { LabelledSlate } from "../src/data/slate-items.ts";
import type { Item } from "../src/data/types.ts";
import { closePlugins } from "../src/plugins/python.ts";
import { type OpenReward, openReward } from "../src/plugins/reward.ts";
import type { Answer, Score } from "../src/reward/reward.ts";
import { judge } from "../src/reward/verify.ts";
import type { Benchmark } from "./claim.ts";

const catalogue = 5000;
const slates = 512;
const group = 8;
const candidates = 10;
const history = 20;
const rounds = 15;

const typescript = `const mean = (labels: readonly number[]): number => {
  let [sum, count] = [0, 0];
  for (let i = 0; i < labels.length; i++) if ((labels[i] as number) > 0) { sum += i + 1; count++; }
  return sum / count;
};
export default {
  score: (answers: readonly { slate: { labels: readonly number[] }; order: readonly number[] }[]): number[] =>
    answers.map(({ slate: { labels }, order }) => (mean(labels) - mean(order.map((i) => labels[i] as number))) / labels.length),
};
`;
const python = `def score(answers):
    out = []
    for a in answers:
        before = [i for i, label in enumerate(a.slate.labels) if label > 0]
        after = [a.order.index(i) for i in before]
        out.append((sum(before) - sum(after)) / len(before) / len(a.order))
    return out
`;

export const bench: Benchmark = async (emit) => {
  const folder = mkdtempSync(join(tmpdir(), "gr2-bench-plugins-"));
  try {
    writeFileSync(join(folder, "promotion.ts"), typescript);
    writeFileSync(join(folder, "promotion.py"), python);
    const { items, answers } = makeAnswers();
    const open = (module?: string): Promise<OpenReward> =>
      openReward({ config: compileConfig({ rl: { reward: module ? { module } : {} } }, "bench"), items });
    const ours = await open();
    const theirs = await open(join(folder, "promotion.ts"));
    const remote = await open(`${join(folder, "promotion.py")}:score`);
    await agree(answers, [ours, theirs, remote]);
    const seconds = { ours: [] as number[], theirs: [] as number[], remote: [] as number[] };
    for (let round = 0; round < rounds; round++) {
      seconds.ours.push(await cpuSeconds(() => judgeAll(ours, answers)));
      seconds.theirs.push(await cpuSeconds(() => judgeAll(theirs, answers)));
      seconds.remote.push(await clockSeconds(() => judgeAll(remote, answers)));
    }
    const best = (values: readonly number[]): number => Math.min(...values);
    emit({
      claim: "plugins/CPU seconds of a TypeScript reward",
      ...{ value: best(seconds.theirs), unit: "s", n: answers.length, bar: ["ratio", "<=", 1.05] },
      ...{ peer: "the same reward of ours", peerValue: best(seconds.ours) },
    });
    emit({
      claim: "plugins/answers scored per second by a Python reward",
      ...{ value: answers.length / best(seconds.remote), unit: "answers/s", n: rounds * answers.length },
      bar: ["value", ">=", 20_000],
    });
  } finally {
    await closePlugins();
    rmSync(folder, { recursive: true, force: true });
  }
};

async function judgeAll(reward: OpenReward, answers: readonly Answer[]): Promise<number> {
  const scores = await reward.score(answers);
  const options = { format: "conditional", formatBonus: 0.2, dehacked: false, invalid: -1 } as const;
  return answers.reduce((sum, { slate, order, reasoning }, i) => {
    const parsed = { kind: "ranking", order, reasoning } as const;
    return sum + judge(parsed, slate.labels, options, () => scores[i] as Score).reward;
  }, 0);
}

async function agree(answers: readonly Answer[], rewards: readonly OpenReward[]): Promise<void> {
  const sums = await Promise.all(rewards.map((reward) => judgeAll(reward, answers)));
  if (sums.some((sum) => Math.abs(sum - (sums[0] as number)) > 1e-6))
    throw new Error(`the rewards differ: ${sums.join(", ")}`);
}

async function cpuSeconds(work: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

async function clockSeconds(work: () => Promise<unknown>): Promise<number> {
  const before = performance.now();
  await work();
  return (performance.now() - before) / 1000;
}

function makeAnswers(): { items: Item[]; answers: Answer[] } {
  const rng = Rng.of(0, "bench plugins");
  const items = Array.from({ length: catalogue }, (_, i): Item => {
    const text = { title: `Item number ${i}`, brand: "Brand", categories: ["Things", `Kind ${i % 40}`] };
    return {
      id: itemId(`item${i}`),
      ...text,
      description: "Some words about what it is and who it is for. ".repeat(4),
    };
  });
  const draw = (): Item => items[rng.int(catalogue)] as Item;
  const answers = Array.from({ length: slates }, (_, s): LabelledSlate => {
    const target = rng.int(candidates);
    const labels = Array.from({ length: candidates }, (_, i) => Number(i === target));
    const shown = {
      history: Array.from({ length: history }, draw),
      candidates: Array.from({ length: candidates }, draw),
    };
    return { id: `slate${s}`, ...shown, scores: labels.map((_, i) => 1 / (i + 1)), labels };
  }).flatMap((slate) =>
    Array.from({ length: group }, (): Answer => {
      const order = rng.shuffle(slate.labels.map((_, i) => i));
      return { slate, mode: "think", order, reasoning: "This user liked the first, so more of its kind." };
    }),
  );
  return { items, answers };
}
