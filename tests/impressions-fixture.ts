/**
 * A log of an incumbent ranker's slates, made up, and a recipe that runs the whole pipeline on it in a second or two.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Rng } from "../src/core/rng.ts";

const numUsers = 40;
const numItems = 40;
const slatesPerUser = 14;

export interface LoggedRequest {
  readonly request: string;
  readonly user: string;
  readonly time: number;
  /** In the incumbent's order. */
  readonly candidates: readonly string[];
  readonly scores: readonly number[];
  /** 1 click, 2 cart, 3 purchase. */
  readonly labels: readonly number[];
}

/**
 * Users walk a ring of items; a slate shows 3 to 8 items near and far in the order of a noisy guess, and the nearest
 * are clicked, carted or purchased. Requests of all users come mixed in time, a few of one user in the same second.
 */
export function loggedRequests(): LoggedRequest[] {
  const rng = Rng.of(11, "impressions fixture");
  const requests: LoggedRequest[] = [];
  for (let user = 0; user < numUsers; user++) {
    let at = rng.int(numItems);
    for (let k = 0; k < slatesPerUser; k++) {
      const size = 3 + rng.int(6);
      const shown = rng.shuffle(Array.from({ length: numItems }, (_, d) => d)).slice(0, size);
      const near = 1 + rng.int(3);
      if (!shown.includes(near)) shown[0] = near;
      const ranked = shown
        .map((distance) => ({ distance, score: Math.round(1000 * (1 / (1 + distance) + 0.4 * rng.uniform())) / 1000 }))
        .sort((a, b) => b.score - a.score);
      const labels = ranked.map(({ distance }) => (distance === near ? 1 + rng.int(3) : distance < 6 ? 1 : 0));
      requests.push({
        request: `r${user}-${k}`,
        user: `u${user}`,
        time: 1_700_000_000 + 1000 * (k - (k % 8 === 7 ? 1 : 0)) + user,
        candidates: ranked.map(({ distance }) => `i${(at + distance) % numItems}`),
        scores: ranked.map(({ score }) => score),
        labels,
      });
      at = (at + near) % numItems;
    }
  }
  return rng.shuffle(requests);
}

/** Writes the log in both layouts, its items and a recipe (long layout) into `folder`; returns the recipe's path. */
export function writeImpressionsFixture(folder: string): string {
  const data = join(folder, "data");
  mkdirSync(data, { recursive: true });
  const requests = loggedRequests();
  const rows = requests.flatMap((r) =>
    r.candidates.map((item, k) => [r.request, r.user, r.time, item, k + 1, r.scores[k], r.labels[k]].join(",")),
  );
  writeFileSync(join(data, "long.csv"), `request,user,time,item,position,score,label\n${rows.join("\n")}\n`);
  writeFileSync(join(data, "wide.jsonl"), requests.map((r) => `${JSON.stringify(r)}\n`).join(""));
  const items = Array.from({ length: numItems }, (_, i) => `i${i},Item number ${i},${["red", "blue", "green"][i % 3]}`);
  writeFileSync(join(data, "items.csv"), `item,title,colour\n${items.join("\n")}\n`);
  writeFileSync(join(folder, "prose.txt"), "Plain words about nothing in particular, said at some length. ".repeat(3));
  const recipe = join(folder, "impressions.yaml");
  writeFileSync(
    recipe,
    `seed: 3
data:
  name: log
  adapter: impressions
  path: ${data}
  cacheDir: ${join(folder, "cache")}
  files: { impressions: long.csv, items: items.csv }
  columns: { slate: request, user: user, time: time, item: item, position: position, score: score, label: label, title: title, categories: colour }
  minInteractions: 3
  split: { kind: global-time, midtrain: 0.4, rerank: 0.3, validation: 0.15, test: 0.15 }
embed: { model: fake }
sid: { levels: 2, codes: 16, format: bare }
midtrain: { epochs: 0.5, batchTokens: 1024, windowItems: 10, windowStride: 8, languageFile: ${join(folder, "prose.txt")} }
prerank: { kind: logged }
prompts: { historyItems: 8 }
decoding: { maxReasoningTokens: 120 }
sft: { epochs: 0.5, batchSlates: 8 }
rl: { steps: 2, prompts: 4, group: 4, evalSteps: 2, evalSlates: 10, reward: { kind: ndcg, dehacked: true } }
eval: { bootstrap: 50, examples: 3 }
`,
  );
  return recipe;
}
