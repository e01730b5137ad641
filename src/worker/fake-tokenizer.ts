/**
 * The smallest tokenizer that real libraries can read: a byte-level BPE without merges (256 byte tokens) plus special
 * tokens, in the Hugging Face tokenizer.json format. For FakeWorker and tests.
 */

/** GPT-2's printable stand-in for each byte, used by every byte-level BPE. */
function byteAlphabet(): string[] {
  const alphabet: string[] = [];
  let next = 256;
  for (let b = 0; b < 256; b++) {
    const printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    alphabet.push(String.fromCodePoint(printable ? b : next++));
  }
  return alphabet;
}

/** The chat template of every pretrained fake model, and the special tokens it comes with. */
export const chatMl = {
  tokens: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
  template:
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" +
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
} as const;

interface AddedToken {
  id: number;
  content: string;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
  special: boolean;
}

interface TokenizerJson {
  added_tokens: AddedToken[];
  model: { vocab: Record<string, number> };
}

const added = (id: number, content: string): AddedToken => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
});

/** A tokenizer.json with the 256 bytes as ids 0..255, then the special tokens. */
export function byteTokenizerJson(specialTokens: readonly string[] = []): Uint8Array {
  const vocab = Object.fromEntries(byteAlphabet().map((c, id) => [c, id]));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return encode({
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [...new Set(specialTokens)].map((content, i) => added(256 + i, content)),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab,
      merges: [],
    },
  });
}

/** Adds tokens at the end of the vocabulary; known ones keep their id. Ids are returned in the order of `tokens`. */
export function extendTokenizerJson(
  json: Uint8Array,
  tokens: readonly string[],
): { json: Uint8Array; ids: number[]; vocabSize: number; idByToken: ReadonlyMap<string, number> } {
  const parsed = JSON.parse(new TextDecoder().decode(json)) as TokenizerJson;
  const idByToken = new Map<string, number>(Object.entries(parsed.model.vocab));
  for (const t of parsed.added_tokens) idByToken.set(t.content, t.id);
  let next = Math.max(-1, ...idByToken.values()) + 1;
  const ids = tokens.map((token) => {
    const known = idByToken.get(token);
    if (known !== undefined) return known;
    parsed.added_tokens.push(added(next, token));
    idByToken.set(token, next);
    return next++;
  });
  return { json: encode(parsed), ids, vocabSize: next, idByToken };
}

const encode = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
