/** `gr2 rerank RUN --user ID`: shows a user's history and candidates, the model's reasoning and its order. */
import { existsSync } from "node:fs";
import pc from "picocolors";
import { readLines } from "../artifacts/files.ts";
import { slateFile } from "../artifacts/slates.ts";
import { DataError } from "../core/errors.ts";
import type { Segment } from "../data/types.ts";
import { type Slate, slateLabels } from "../prerank/types.ts";
import { RunFolder } from "../run/run-folder.ts";
import { handleInterrupts } from "../worker/interrupt.ts";
import { columns, plain } from "./format.ts";
import { type RerankArguments, referTo, withEngine } from "./rerank.ts";

const historyShown = 10;
const titleWidth = 60;
/** Segments searched for a slate of the user, those that nothing was trained on first. */
const segments: readonly Segment[] = ["test", "validation", "rerank"];

/** One slate before and after. */
export interface UserAnswer {
  readonly user: string;
  readonly slate: string;
  readonly segment: Segment;
  readonly system: string;
  readonly history: readonly { readonly id: string; readonly title: string }[];
  /** Best first. */
  readonly order: readonly {
    readonly id: string;
    readonly title: string;
    /** From 1, in the input order. */
    readonly prerank: number;
    readonly score: number;
    /** Whether it is the next item, or was clicked. */
    readonly relevant: boolean;
  }[];
  readonly reasoning: string;
  readonly fallback: string | null;
}

export async function rerankUser(args: RerankArguments & { readonly user: string }): Promise<string> {
  const interrupts = handleInterrupts();
  const signal = args.signal ? AbortSignal.any([args.signal, interrupts.signal]) : interrupts.signal;
  try {
    const answer = await withEngine(
      args,
      () => {},
      signal,
      async ({ dataset, engine, mode, system }) => {
        const { items, sequences } = dataset;
        const row = sequences.findIndex((s) => s.user === args.user);
        if (row < 0)
          throw new DataError(`the data of run ${args.name} has no user ${args.user}`, {
            advice: `Users are, for example, ${sequences
              .slice(0, 3)
              .map((s) => s.user)
              .join(", ")}.`,
          });
        const slate = findSlate(args, row);
        const history = (sequences[row]?.items ?? new Int32Array()).subarray(0, slate.position);
        const labels = slateLabels(slate);
        const about = (item: number) => ({ id: String(items[item]?.id ?? ""), title: items[item]?.title ?? "" });
        const { ranking, reasoning, fallback } = await engine.rerank({
          history: referTo(history, items),
          candidates: slate.candidates.map((item, i) => ({
            id: about(item).id,
            itemId: about(item).id,
            score: slate.scores[i] ?? 0,
          })),
          topN: args.topN ?? 0,
          mode,
          deadlineMs: 0,
        });
        return {
          ...{ user: args.user, slate: slate.id, segment: slate.segment, system },
          history: Array.from(history, about),
          order: ranking.map(({ position, score }) => ({
            ...about(slate.candidates[position] ?? -1),
            ...{ prerank: position + 1, score, relevant: (labels[position] ?? 0) > 0 },
          })),
          reasoning,
          fallback: fallback ?? null,
        } satisfies UserAnswer;
      },
    );
    return args.json ? JSON.stringify(answer) : render(answer);
  } finally {
    interrupts.dispose();
  }
}

/** The user's last slate in the first segment that has one, preferably one that contains its true item. */
function findSlate({ root, name, user }: RerankArguments & { readonly user: string }, row: number): Slate {
  const dir = RunFolder.view(root, name).file("stages", "slates");
  for (const segment of segments) {
    const file = slateFile(dir, segment);
    if (!existsSync(file)) continue;
    const own = readLines<Slate>(file).filter((s) => s.user === row);
    const found = own.filter((s) => s.targetIndex >= 0).at(-1) ?? own.at(-1);
    if (found) return found;
  }
  throw new DataError(`user ${user} has no slate in run ${name}: too few interactions, or none late enough`, {
    advice: "Supply the candidates yourself: gr2 rerank RUN --in FILE with a column user.",
  });
}

function render(a: UserAnswer): string {
  const cut = a.history.length - historyShown;
  const line = (item: { id: string; title: string }): string =>
    `${plain(item.title || "untitled", titleWidth)} (${item.id})`;
  const table = columns([
    ["#", "was", "score", "candidate"],
    ...a.order.map((o, i) => [String(i + 1), String(o.prerank), o.score.toFixed(4), ""]),
  ]).split("\n");
  const rows = a.order.map(
    (o, i) => `${(table[i + 1] ?? "").trimEnd()}  ${line(o)}${o.relevant ? pc.green("  ← came next") : ""}`,
  );
  return [
    pc.bold(`user ${a.user}, slate ${a.slate} (${a.segment}), by ${a.system}`),
    "",
    cut > 0 ? `history, the last ${historyShown} of ${a.history.length}` : "history",
    ...a.history.slice(-historyShown).map((h) => `  ${line(h)}`),
    ...(a.reasoning ? ["", "reasoning", ...a.reasoning.split("\n").map((t) => `  ${plain(t, 400)}`)] : []),
    "",
    pc.bold((table[0] ?? "").trimEnd()),
    ...rows,
    ...(a.fallback ? [pc.yellow(`the model gave no valid answer (${a.fallback}): this is the input order`)] : []),
  ].join("\n");
}
