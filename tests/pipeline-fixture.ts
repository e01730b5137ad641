/** A data set and a recipe for which the whole pipeline takes a second or two on a fake worker. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Rng } from "../src/core/rng.ts";

const numUsers = 60;
const length = 20;
const genres = ["Drama", "Comedy", "Western"];

/** Writes data in RecBole's layout and a recipe into `folder`; returns the recipe's path. */
export function writePipelineFixture(folder: string, numItems = 30): string {
  const data = join(folder, "data");
  mkdirSync(data, { recursive: true });
  const rng = Rng.of(7, "pipeline fixture");
  const inter = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"];
  for (let user = 0; user < numUsers; user++) {
    // A walk along a ring of items, mostly forward: something for pre-ranker and teacher to find.
    let at = rng.int(numItems);
    const seen = new Set<number>();
    while (seen.size < length) {
      at = rng.uniform() < 0.2 ? rng.int(numItems) : (at + 1 + rng.int(3)) % numItems;
      if (seen.has(at)) continue;
      seen.add(at);
      inter.push(`u${user}\ti${at}\t${1 + rng.int(5)}\t${1_000_000 + 100 * seen.size + user}`);
    }
  }
  writeFileSync(join(data, "small.inter"), `${inter.join("\n")}\n`);
  const items = ["item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"];
  for (let i = 0; i < numItems; i++)
    items.push(
      `i${i}\tFilm number ${i}\t${1950 + i}\t${genres[Math.floor((3 * i) / numItems)]} ${i % 2 ? "Long" : "Short"}`,
    );
  writeFileSync(join(data, "small.item"), `${items.join("\n")}\n`);
  const prose = Array.from({ length: 4 }, (_, k) =>
    `Paragraph ${k}: plain words about nothing in particular, `.repeat(3),
  );
  writeFileSync(join(folder, "prose.txt"), prose.join("\n\n"));
  const recipe = join(folder, "small.yaml");
  writeFileSync(
    recipe,
    `seed: 3
data: { name: small, adapter: recbole, path: ${data}, cacheDir: ${join(folder, "cache")} }
embed: { model: fake }
sid: { levels: 2, codes: 16, format: bare }
midtrain: { epochs: 2, batchTokens: 1024, windowItems: 10, windowStride: 8, checkpointSteps: 4, languageFile: ${join(folder, "prose.txt")} }
prerank: { candidates: 5 }
prompts: { historyItems: 8 }
decoding: { maxReasoningTokens: 120 }
sft: { epochs: 2, batchSlates: 8, checkpointSteps: 3 }
rl: { steps: 6, prompts: 4, group: 4, evalSteps: 2, evalSlates: 20, checkpointSteps: 2, keepBest: false }
eval: { bootstrap: 200, examples: 3 }
`,
  );
  return recipe;
}
