/**
 * The guarantees of every answer, tested with random requests: scores add up to 1 and never rise, copies of an item
 * split its probability, neither the listed order of scored candidates nor an order declared arbitrary matters, and a
 * registered item is ranked by its id as by its text.
 */
import { Rng } from "../src/core/rng.ts";
import { forgeries } from "./hostile-http.ts";

interface Entry {
  readonly id: string;
  readonly score: number;
}

interface Answer {
  readonly ranking: readonly Entry[];
  readonly fallback: string | null;
}

/** Scores of two answers may differ in the last bits of a float32, since different batches computed them. */
const tolerance = 1e-5;

/** What is wrong with the n-th request's answers, or "". */
export async function keepsPromises(
  url: URL,
  headers: Record<string, string>,
  seed: number,
  n: number,
): Promise<string> {
  const rng = Rng.of(seed, "promises", n);
  const pick = <T>(items: readonly T[]): T => items[rng.int(items.length)] as T;
  const isScored = rng.int(2) === 0;
  const candidates = Array.from({ length: 2 + rng.int(10) }, (_, i) => ({
    id: `c${i}`,
    text: `${pick(forgeries.filter((f) => f.length < 100))} ${rng.int(4)}`,
    ...(isScored ? { score: pick([1, 1, 0.5, rng.uniform()]) } : {}),
  }));
  const ask = async (list: readonly object[]): Promise<Answer | string> => {
    const response = await fetch(new URL("/gr2/v1/rerank", url), {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify({
        ...{ history: ["50", { text: "Heat (1995)" }], candidates: list, deadline_ms: 30_000 },
        ...(isScored ? {} : { candidate_order: "arbitrary" }),
      }),
    });
    return response.status === 200 ? ((await response.json()) as Answer) : `status ${response.status}`;
  };
  const shuffled = candidates.map((c) => ({ c, at: rng.uniform() })).sort((a, b) => a.at - b.at);
  const answers = [await ask(candidates), await ask(shuffled.map(({ c }) => c))];
  for (const answer of answers) {
    if (typeof answer === "string") return answer;
    if (answer.fallback !== null) return `the own order came back: ${answer.fallback}`;
    const scores = answer.ranking.map((r) => r.score);
    const sum = scores.reduce((a, b) => a + b, 0);
    if (Math.abs(sum - 1) > tolerance) return `scores add up to ${sum}`;
    if (scores.some((s, i) => i > 0 && s > (scores[i - 1] as number))) return "scores rise";
  }
  const [one, other] = answers as [Answer, Answer];
  const scoreById = new Map(other.ranking.map((r) => [r.id, r.score]));
  const moved = one.ranking.find((r) => Math.abs(r.score - (scoreById.get(r.id) ?? 2)) > tolerance);
  return moved ? `shuffled, ${moved.id} has ${scoreById.get(moved.id)} instead of ${moved.score}` : "";
}

/** What is wrong after the n-th registration, or "". The text may be any. */
export async function keepsItems(url: URL, headers: Record<string, string>, seed: number, n: number): Promise<string> {
  const rng = Rng.of(seed, "items", n);
  const text = `${forgeries[rng.int(forgeries.length)]} ${rng.int(50)}`;
  const itemId = `fuzz-${seed}-${n}`;
  const post = async (path: string, body: object): Promise<unknown> => {
    const response = await fetch(new URL(path, url), {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: JSON.stringify(body),
    });
    return response.status === 200 ? response.json() : `status ${response.status}`;
  };
  const registered = await post("/v1/items", { items: [{ item_id: itemId, text }] });
  if (typeof registered === "string") return registered;
  const ask = (candidate: object): Promise<unknown> => {
    const candidates = [
      { id: "new", ...candidate },
      { id: "b", text: "Heat (1995)" },
    ];
    return post("/gr2/v1/rerank", { history: ["50"], candidates, deadline_ms: 30_000 });
  };
  const [byId, byText] = [await ask({ item_id: itemId }), await ask({ text })] as [Answer | string, Answer | string];
  if (typeof byId === "string" || typeof byText === "string") return `by id ${byId}, by text ${byText}`;
  const [one, other] = [byId, byText].map((a) => a.ranking.find((r) => r.id === "new")?.score ?? 2);
  const differs = Math.abs((one as number) - (other as number)) > tolerance;
  return differs ? `by its id it has ${one}, by its text ${other}` : "";
}
