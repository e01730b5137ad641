/**
 * A request prepared for the model as in training and evaluation (policy/ask.ts), with the run's prompts and prior.
 * Candidates with the same semantic ID are one item to the model. Answers are parsed in order.ts.
 */
import { sha256 } from "../../core/hash.ts";
import { type AskOptions, type Choices, directPrompt, maxResponseTokens, rerankPrompt } from "../../policy/ask.ts";
import { averageOverTies, computePrior, type Prior } from "../../policy/prior.ts";
import { partCandidates, pick } from "../../prerank/heads.ts";
import { buildCompressor } from "../../prompts/compress.ts";
import { type ChatFrame, Encoder } from "../../prompts/pieces.ts";
import { type ConstraintTokens, constraintTokens, renderPrompt } from "../../prompts/rerank.ts";
import { type Codes, formatSid, spellCodes } from "../../sid/semantic-id.ts";
import type { Tokenizer } from "../../worker/tokenizer.ts";
import type { TokenIds } from "../../worker/types.ts";
import type { CandidateOrder, ServeMode } from "../request/types.ts";
import { readOrder } from "./candidate-order.ts";
import type { SlateFacts } from "./evidence.ts";
import type { Found, FoundItems } from "./items.ts";
import { Lru } from "./lru.ts";
import { type ServedRun, usesEvidence } from "./served-run.ts";

/**
 * `sequences` and `prior` are those of the distinct semantic IDs, in the caller's order (candidate-order.ts) of their
 * first candidate. Without a language model they are those of the distinct items, prompt and sequences are empty.
 */
export interface PreparedRequest extends Choices {
  readonly mode: ServeMode;
  readonly prompt: readonly number[];
  /** Each sequence as text. */
  readonly spellings: readonly string[];
  /** Per sequence: the positions of the request's candidates that it represents. */
  readonly positions: readonly (readonly number[])[];
  /** The same for candidates outside the head (prompts.candidates), best first. */
  readonly tail: readonly (readonly number[])[];
  readonly topN: number;
  /** Items of the request by their codes, for titles in the reasoning of mode think. */
  readonly titles: ReadonlyMap<string, string>;
  /** Equal keys have equal answers. */
  readonly key: string;
}

export class RequestPreparer {
  private readonly run: Pick<ServedRun, "config" | "items" | "catalogue" | "systems" | "typical" | "evidence">;
  private readonly tokenizer: Pick<Tokenizer, "encode" | "decode" | "requireTokenId" | "special"> | undefined;
  private readonly chat: ChatFrame | undefined;
  private general: AskOptions | undefined;
  private readonly texts = new Lru<string, number[]>(10_000);

  constructor(run: RequestPreparer["run"], tokenizer: RequestPreparer["tokenizer"], chat: ChatFrame | undefined) {
    this.run = run;
    this.tokenizer = tokenizer;
    this.chat = chat;
  }

  /** Prompts and tokens for the run's own items. */
  get options(): AskOptions {
    this.general ??= this.optionsFor((row) => this.run.catalogue.codesAt(row));
    return this.general;
  }

  readonly decode = (ids: TokenIds): string => this.requireTokenizer().decode(ids);

  private requireTokenizer() {
    if (!this.tokenizer) throw new RangeError("a system without a language model has no tokenizer");
    return this.tokenizer;
  }

  /**
   * @param scores of the caller's ranker, per candidate; undefined if not given
   * @param facts what else evidence needs, aligned with the candidates found
   * @param listed what the order of candidates without scores means
   */
  prepare(
    mode: ServeMode,
    found: FoundItems,
    scores: readonly number[] | undefined,
    topN: number,
    facts: SlateFacts = {},
    listed: CandidateOrder = this.run.config.serve.candidateOrder,
  ): PreparedRequest {
    const { config, systems, catalogue, typical, evidence, items } = this.run;
    const { history, candidates } = found;
    const system = systems[mode];
    const hasModel = system?.weights !== undefined;
    const firsts = new Map<string, number[]>();
    for (const position of readOrder(candidates, scores, listed, (row) => row < items.length)) {
      const c = candidates[position] as Found;
      const key = hasModel ? c.codes.join() : String(c.row);
      const same = firsts.get(key);
      if (same) same.push(position);
      else firsts.set(key, [position]);
    }
    const positions = [...firsts.values()];
    const distinct = positions.map(([first]) => candidates[first as number] as Found);
    const byRow = new Map([...history, ...candidates].map((f) => [f.row, f]));
    const rows = history.map((f) => f.row);
    const isListed = !scores && listed === "ranked";
    const given = positions.map(([first]) =>
      isListed ? typicalAt(typical.score, first as number) : (scores?.[first as number] ?? 0),
    );
    const prior = system?.prior as Prior;
    const pickFirsts = (said: readonly (number | null)[]) => positions.map(([first]) => said[first as number] ?? null);
    const distinctFacts = {
      time: facts.time,
      ...(isListed ? {} : { positions: averageOverTies(given, [...given.keys()]) }),
      experts:
        facts.experts &&
        Object.fromEntries(Object.entries(facts.experts).map(([name, said]) => [name, pickFirsts(said)])),
    };
    const computed =
      system && usesEvidence(config, system)
        ? evidence?.(
            rows,
            distinct.map((f) => f.row),
            given,
            distinctFacts,
          )
        : undefined;
    const { head, tail } = partCandidates(distinct.length, hasModel ? config.prompts.candidates : 0, computed);
    const asked = pick(distinct, head);
    const weighed = computePrior(prior, {
      scores: pick(given, head),
      sharePositions: !isListed,
      ...(computed ? { evidence: pick(computed, head) } : {}),
    });
    const askedRows = asked.map((f) => f.row);
    const shown = { history: rows, candidates: askedRows, getTitle: (row: number) => byRow.get(row)?.title ?? "" };
    const options = hasModel ? this.optionsAbout(byRow) : undefined;
    const writes = mode === "think" ? mode : system?.writes;
    const prompt = !options ? [] : writes ? rerankPrompt(options, shown, writes) : directPrompt(options, rows);
    const sequences = askedRows.map((row) => options?.encoder.item(row) ?? []);
    return {
      mode,
      prompt,
      sequences,
      spellings: asked.map((f) => formatSid(f.codes, catalogue.shape.format)),
      positions: pick(positions, head),
      tail: pick(positions, tail),
      prior: weighed,
      topN,
      titles: new Map(mode === "think" ? [...byRow.values()].map((f) => [f.codes.join(), f.title]) : []),
      key: sha256(
        JSON.stringify([
          mode,
          catalogue.shape.format,
          prompt,
          sequences,
          weighed,
          pick(positions, head),
          pick(positions, tail),
          writes ? topN : 0, // the written order ends after topN
        ]),
      ),
    };
  }

  constraintTokens(): ConstraintTokens {
    return constraintTokens("think", this.options.prompts, this.options.encoder);
  }

  /**
   * How many candidates fit the model's positions with prompt and answer, for a full history and the longest titles
   * possible.
   * @param positions of the model; 0 = unlimited
   */
  mostCandidates(mode: ServeMode, positions: number): number {
    const writes = mode === "think" ? mode : this.run.systems.direct?.writes;
    if (positions === 0 || !writes) return Number.POSITIVE_INFINITY;
    const { config, catalogue } = this.run;
    const { prompts } = config;
    const word = this.requireTokenizer().encode(" .").length;
    const title = prompts.showTitles ? (prompts.maxTitleTokens || 4 * 64) + word : 0;
    const item = spellCodes(catalogue.codesAt(0), catalogue.shape.format).length;
    const { separator } = constraintTokens(writes, prompts, this.options.encoder);
    const shown = prompts.showCandidates || prompts.format === "json" ? item + title : 0;
    const none = this.options.encoder.encode(
      renderPrompt({ history: [], candidates: [], getTitle: () => "" }, writes, prompts),
    ).length;
    const answer = maxResponseTokens(this.options, [{ sequences: [] }], writes);
    const fixed = none + prompts.historyItems * (item + title) + answer;
    const most = Math.max(0, Math.floor((positions - fixed) / (shown + item + separator.length)));
    return prompts.candidates > 0 && most >= prompts.candidates ? Number.POSITIVE_INFINITY : most;
  }

  /** Spells the run's own items. */
  catalogueEncoder(): Encoder {
    return this.options.encoder;
  }

  /** Spells the run's own items as usual, others by the codes found for this request. */
  private optionsAbout(byRow: ReadonlyMap<number, Found>): AskOptions {
    const numKnown = this.run.items.length;
    for (const row of byRow.keys()) if (row >= numKnown) return this.optionsFor((r) => byRow.get(r)?.codes ?? []);
    return this.options;
  }

  private optionsFor(codesAt: (row: number) => Codes): AskOptions {
    const { catalogue, config } = this.run;
    const { format } = catalogue.shape;
    const tokenizer = this.requireTokenizer();
    const encoder = new Encoder(
      {
        encode: (text) => {
          const known = this.texts.get(text);
          if (known) return known;
          const ids = tokenizer.encode(text);
          this.texts.set(text, ids);
          return ids;
        },
        tokenId: (token) => tokenizer.requireTokenId(token),
      },
      { tokensAt: (row) => spellCodes(codesAt(row), format) },
      { special: tokenizer.special, chat: this.chat },
    );
    const { prompts, decoding } = config;
    return { encoder, prompts, decoding, compressor: buildCompressor(prompts, encoder) };
  }
}

const typicalAt = (typical: readonly number[], position: number): number =>
  typical[Math.min(position, typical.length - 1)] ?? 0;
