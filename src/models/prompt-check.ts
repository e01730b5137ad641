/**
 * Stops a stage whose prompts would show their own answers: renders every slate as the stage will, without tokenizing.
 */

import type { Corpus } from "../artifacts/corpus.ts";
import { toSlateInput } from "../artifacts/slates.ts";
import { checkPrompts, type ShownPrompt } from "../data/leakage.ts";
import type { Slate } from "../prerank/types.ts";
import { itemsShown, renderPrompt } from "../prompts/rerank.ts";
import { sequentialTask } from "../prompts/tasks.ts";
import type { StageContext } from "../run/stage.ts";

/**
 * Checks both the re-ranking prompt and the bare history of direct mode. Throws RunError. Logged slates are left to
 * checkLoggedSlates: there, an item of the history may rightly be shown, and chosen, again.
 */
export function checkRenderedPrompts(
  context: Pick<StageContext, "config">,
  corpus: Corpus,
  slates: Iterable<Slate>,
  consumer: string,
): void {
  const { prompts } = context.config;
  function* shown(): Generator<ShownPrompt> {
    for (const slate of slates) {
      if (slate.labels) continue;
      const { history, candidates } = toSlateInput(corpus, slate);
      const rerank = renderPrompt({ history, candidates, getTitle: () => "" }, "think", prompts);
      const direct = sequentialTask(history.subarray(-prompts.historyItems));
      for (const pieces of [rerank, direct])
        yield { id: slate.id, target: slate.target, ...itemsShown(pieces), expected: slate.candidates };
    }
  }
  checkPrompts(shown(), consumer);
}
