/** Test slates before and after re-ranking, for examples.json. */
import type { Corpus } from "../../artifacts/corpus.ts";
import { toSlateInput } from "../../artifacts/slates.ts";
import type { Slate } from "../../prerank/types.ts";
import { markers } from "../../prompts/pieces.ts";
import { findSids } from "../../sid/semantic-id.ts";
import type { SystemResult } from "./answers.ts";

export function examples(
  corpus: Corpus,
  test: readonly Slate[],
  results: readonly SystemResult[],
  selected: string,
): unknown[] {
  const source = results.find((s) => s.system === selected);
  const titles = (rows: ArrayLike<number>): string[] => Array.from(rows, (r) => corpus.items[r]?.title || "untitled");
  return (source?.shown ?? []).map(({ slate: id, text, order }) => {
    const slate = test.find((s) => s.id === id) as Slate;
    const { history } = toSlateInput(corpus, slate);
    return {
      slate: id,
      system: source?.system,
      history: titles(Array.prototype.slice.call(history, -10)),
      candidates: slate.candidates.map((row, i) => ({
        title: corpus.items[row]?.title || "untitled",
        sid: corpus.catalogue.textAt(row),
        prerank: i + 1,
      })),
      target: slate.targetIndex,
      ...(slate.labels ? { labels: slate.labels } : {}),
      before: slate.candidates.map((_, i) => i),
      after: order,
      reasoning: readable(corpus, text.split(markers.answer)[0] ?? ""),
    };
  });
}

/** Semantic IDs in a text, followed by the titles they stand for. */
function readable(corpus: Corpus, text: string): string {
  let out = "";
  let at = 0;
  for (const { end, codes } of findSids(text, corpus.catalogue.shape)) {
    const row = corpus.catalogue.findRow(codes);
    out += `${text.slice(at, end)} [${row === undefined ? "no such item" : corpus.items[row]?.title || "untitled"}]`;
    at = end;
  }
  return out + text.slice(at);
}
