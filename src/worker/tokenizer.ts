/**
 * Tokenizer: @huggingface/tokenizers over the worker's tokenizer.json, with nothing added or cleaned up, so its ids
 * equal those of Python's `tokenizers`. Special tokens spelled out in a text become special tokens: callers must
 * neutralise untrusted text first (prompts/).
 */
import { Tokenizer as HfTokenizer } from "@huggingface/tokenizers";
import { WorkerError } from "../core/errors.ts";

export class Tokenizer {
  private readonly inner: HfTokenizer;
  /** One more than the largest id. */
  readonly vocabSize: number;
  /** Special tokens: id to spelling. */
  readonly special: ReadonlyMap<number, string>;

  private constructor(inner: HfTokenizer, special: ReadonlyMap<number, string>) {
    this.inner = inner;
    this.special = special;
    let largest = -1;
    for (const id of inner.get_vocab(true).values()) largest = Math.max(largest, id);
    this.vocabSize = largest + 1;
  }

  /** `json`: the bytes of a tokenizer.json, as LoadModel and TrainTokenizer return them. */
  static fromJson(json: Uint8Array | string): Tokenizer {
    try {
      const parsed = JSON.parse(typeof json === "string" ? json : new TextDecoder().decode(json)) as {
        readonly added_tokens?: readonly { readonly id: number; readonly content: string; readonly special: boolean }[];
      };
      const special = (parsed.added_tokens ?? []).filter((t) => t.special);
      return new Tokenizer(new HfTokenizer(parsed, {}), new Map(special.map((t) => [t.id, t.content])));
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new WorkerError(`the worker's tokenizer.json cannot be read: ${reason}`, { cause, retryable: false });
    }
  }

  /** Ids of a text; never adds BOS, EOS or padding. */
  encode(text: string): number[] {
    return text === "" ? [] : this.inner.encode(text, { add_special_tokens: false }).ids;
  }

  /** Exact text of ids, special tokens included. */
  decode(ids: ArrayLike<number>): string {
    if (ids.length === 0) return "";
    return this.inner.decode(Array.from(ids), { skip_special_tokens: false, clean_up_tokenization_spaces: false });
  }

  /** Id of one token as spelled in the vocabulary, or undefined. */
  tokenId(token: string): number | undefined {
    return this.inner.token_to_id(token);
  }

  /** Id of a token that must exist. */
  requireTokenId(token: string): number {
    const id = this.tokenId(token);
    if (id === undefined) throw new WorkerError(`the tokenizer lacks the token "${token}"`, { retryable: false });
    return id;
  }

  /** Spelling of one id as in the vocabulary, or undefined. */
  idToken(id: number): string | undefined {
    return this.inner.id_to_token(id);
  }
}
