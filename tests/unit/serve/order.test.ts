/** A served answer is read exactly as an evaluated one: the same responses through the service and through Policy. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { configSchema } from "../../../src/config/schema.ts";
import { Policy } from "../../../src/policy/policy.ts";
import { flatPrior } from "../../../src/policy/prior.ts";
import { Encoder, markers } from "../../../src/prompts/pieces.ts";
import { writtenOrder } from "../../../src/serve/model/order.ts";
import { RequestPreparer } from "../../../src/serve/model/prepared-request.ts";
import type { ServedRun } from "../../../src/serve/model/served-run.ts";
import { formatSid, spellCodes } from "../../../src/sid/semantic-id.ts";
import { FakeWorker } from "../../../src/worker/fake.ts";
import type { Completion, SampleEvent, TokenIds } from "../../../src/worker/types.ts";

const codesAt = (row: number): number[] => [row % 2, row];
const rows = [4, 1, 6, 3];
const codeNames = [...new Set(rows.flatMap((row) => spellCodes(codesAt(row), "bare")))];
const specials = [...Object.values(markers), ...codeNames];
const tokenId = (token: string): number => specials.indexOf(token);
const encode = (text: string): number[] => Array.from(text, (c) => 100 + c.charCodeAt(0));
const decode = (ids: TokenIds): string =>
  Array.from(ids, (id) => (id < 100 ? (specials[id] as string) : String.fromCharCode(id - 100))).join("");

function setUp(constrained: boolean, format: "compact" | "json") {
  const config = configSchema.parse({ decoding: { constrained }, prompts: { format, chat: "off" } });
  const { prompts, decoding } = config;
  const prior = flatPrior(4);
  const run = {
    config,
    catalogue: { shape: { levels: 2, codes: 8, format: "bare" }, codesAt },
    systems: { think: { name: "rl", weights: "", prior } },
    typical: { score: [] },
    evidence: undefined,
    items: Array.from({ length: 8 }, (_, row) => ({ id: String(row), title: "" })),
  } as unknown as Pick<ServedRun, "config" | "items" | "catalogue" | "systems" | "typical" | "evidence">;
  const tokenizer = { encode, decode, requireTokenId: tokenId, special: new Map<number, string>() };
  const preparer = new RequestPreparer(run, tokenizer, undefined);
  const found = rows.map((row) => ({ row, codes: codesAt(row), title: "" }));
  let completion: Completion;
  const worker = new FakeWorker();
  worker.sample = async function* (): AsyncGenerator<SampleEvent> {
    yield { completions: [completion], weightVersion: 0, weightsId: "w", done: 1, total: 1, reusedPromptTokens: 0 };
  };
  const policy = new Policy({
    worker,
    encoder: new Encoder({ encode, tokenId }, { tokensAt: (row) => spellCodes(codesAt(row), "bare") }),
    decoder: { decode },
    spell: (row) => formatSid(codesAt(row), "bare"),
    getTitle: () => "",
    prior,
    options: { prompts, decoding, microBatchTokens: 1, sampleBatchTokens: 1 },
  });
  const ask = (topN: number) => preparer.prepare("think", { history: [], candidates: found }, undefined, topN);
  return {
    served: (tokens: readonly number[], topN = 0, logprobs = new Float32Array(tokens.length)) =>
      writtenOrder(preparer.options, ask(topN), makeCompletion(tokens, logprobs), "think", topN, preparer.decode),
    evaluated: async (tokens: readonly number[]) => {
      completion = makeCompletion(tokens, new Float32Array(tokens.length));
      const slate = { history: [], candidates: rows, scores: [4, 3, 2, 1] };
      const [rollout] = await policy.sample([slate], { mode: "think", group: 1, temperature: 0, seed: 0 });
      return rollout?.parsed;
    },
  };
}
const makeCompletion = (tokens: readonly number[], logprobs: Float32Array): Completion => ({
  ...{ prompt: 0, sample: 0, logprobs, finishReason: "stop" },
  tokens: Int32Array.from(tokens),
});

const itemsAt = (...at: number[]): number[] =>
  at.flatMap((j) => spellCodes(codesAt(rows[j] as number), "bare").map(tokenId));
const end = tokenId("<|end|>");
const answer = tokenId("<|answer|>");

describe.each([true, false])("with decoding.constrained = %s", (constrained) => {
  it.each(["compact", "json"] as const)(
    "any response is an order to both or to neither, the same one (%s)",
    async (format) => {
      const { served, evaluated } = setUp(constrained, format);
      const part = fc.oneof(
        { weight: 6, arbitrary: fc.integer({ min: 0, max: 3 }).map((j) => itemsAt(j)) },
        { weight: 1, arbitrary: fc.constantFrom(...specials.map((_, id) => [id])) },
        {
          weight: 2,
          arbitrary: fc
            .constantFrom(" ", "\n", "x", '"', '", "', '"]}', '", "ranking": ["', '","ranking":["')
            .map(encode),
        },
      );
      const permutation = fc.shuffledSubarray([0, 1, 2, 3], { minLength: 3 }).map((order) => {
        const open = format === "compact" ? [answer] : encode('", "ranking": ["');
        const between = format === "compact" ? [] : encode('", "');
        const close = format === "compact" ? [end] : [...encode('"]}'), end];
        return [open, ...order.flatMap((j, k) => [...(k > 0 ? [between] : []), itemsAt(j)]), close];
      });
      const response = fc
        .tuple(fc.array(part, { maxLength: 3 }), permutation, fc.array(part, { maxLength: 1 }), fc.nat(12))
        .map(([before, body, after, cut]) => [...before, ...body, ...after].slice(0, cut < 9 ? undefined : cut).flat());
      let rankings = 0;
      await fc.assert(
        fc.asyncProperty(response, async (tokens) => {
          const parsed = await evaluated(tokens);
          const order = served(tokens)?.ranking.map((r) => r.position);
          expect(order).toEqual(parsed?.kind === "ranking" ? parsed.order : undefined);
          if (order) rankings++;
        }),
        { numRuns: 400, seed: 1 },
      );
      expect(rankings).toBeGreaterThan(20); // it tells something
      expect(rankings).toBeLessThan(380);
    },
  );
});

describe("scores", () => {
  it("are chances of being the first choice, from each choice's among those left, and never rise", () => {
    const { served } = setUp(true, "compact");
    const logprobs = Float32Array.from([0, Math.log(0.5), 0, Math.log(0.75), 0, Math.log(0.9), 0, 0, 0, 0]);
    const order = served([answer, ...itemsAt(2, 0, 1, 3), end], 0, logprobs);
    expect(order?.ranking.map((r) => r.position)).toEqual([2, 0, 1, 3]);
    // .5, then .5 * .75, then (.5 * .25) * .9, then (.5 * .25 * .1) * 1
    [0.5, 0.375, 0.1125, 0.0125].forEach((chance, k) => {
      expect(order?.ranking[k]?.score).toBeCloseTo(chance, 6);
    });
  });

  it("are 0 for what the model was not asked to write, which follows in the caller's order", () => {
    const { served } = setUp(true, "compact");
    const order = served([answer, ...itemsAt(3, 1), end], 2);
    expect(order?.ranking.map((r) => r.position)).toEqual([3, 1, 0, 2]);
    expect(order?.ranking.slice(2).map((r) => r.score)).toEqual([0, 0]);
    expect(served([answer, ...itemsAt(3), end], 2)).toBeUndefined();
  });

  it("are 0 from the first item on that is not spelled in its own tokens", () => {
    const { served } = setUp(false, "compact");
    const inLetters = encode(formatSid(codesAt(rows[1] as number), "bare"));
    const order = served([answer, ...itemsAt(0), ...inLetters, ...itemsAt(2, 3), end]);
    expect(order?.ranking.map((r) => [r.position, r.score])).toEqual([
      [0, 1],
      [1, 0],
      [2, 0],
      [3, 0],
    ]);
  });
});
