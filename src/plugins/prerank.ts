/** A pre-ranker that a recipe names: fitted like the built-in ones; every list it returns is checked. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { Gr2Error } from "../core/errors.ts";
import { nameModule } from "../core/module-name.ts";
import type { TrainingView } from "../data/split.ts";
import type { BroughtPreRanker, FittedPreRanker } from "../prerank/brought.ts";
import { slateId } from "../prerank/slates.ts";
import type { FitPreRanker, PreRanker, Ranked, Repeats } from "../prerank/types.ts";
import { checkShape, isFunction, show } from "./contract.ts";
import type { PluginIdentity } from "./identity.ts";
import { callWithin } from "./limits.ts";
import { type NamedPlugin, pluginFault, pluginMisfit, pluginsAt } from "./named.ts";
import { describeThrown, type OpenModule, openModule, type Surroundings } from "./open.ts";

export interface OpenPreRanker {
  readonly name: string;
  readonly identity: PluginIdentity;
  readonly fit: FitPreRanker;
}

const fittedShape = z.looseObject({
  rankTop: isFunction,
  scale: z.enum(["log", "none"]).optional(),
  floor: z.number().optional(),
  parameters: z.number().optional(),
});

/** Undefined if the recipe names none. @param datasetHash names slates in messages */
export async function openPreRanker(around: Surroundings, datasetHash: string): Promise<OpenPreRanker | undefined> {
  const [plugin] = pluginsAt(around.config, "prerank");
  if (plugin === undefined) return undefined;
  const opened = await openModule(plugin, around);
  const brought = opened.kind === "remote" ? inPython(plugin, opened, around) : inScript(plugin, opened.value);
  const name = nameModule(plugin.module);
  const { items, config } = around;
  return {
    name,
    identity: opened.identity,
    fit: async (view, purpose) => {
      const training = { ...view, items, seed: config.seed };
      const fitted = await guard(plugin, `fitting ${purpose.name}`, () => brought.fit(training, purpose));
      const { scale = "none", floor, parameters = 0 } = checkShape(fittedShape, fitted, plugin, "a fitted pre-ranker");
      return {
        ...{ name, scale, parameters, ...(floor === undefined ? {} : { floor }) },
        rankTop: (histories, n, repeats, users) =>
          rank(plugin, fitted, { histories, n, repeats, users }, view, datasetHash),
      } satisfies PreRanker;
    },
  };
}

function inScript(plugin: NamedPlugin, value: unknown): BroughtPreRanker {
  const own = checkShape(z.looseObject({ fit: isFunction }), value, plugin, "a pre-ranker, {fit(training)}");
  const brought = own as unknown as BroughtPreRanker;
  return {
    fit: async (training, purpose) => {
      const fitted = await callWithin(plugin.timeoutSeconds, () => brought.fit(training, purpose));
      if (typeof fitted !== "object" || fitted === null) return fitted;
      const ranked: FittedPreRanker["rankTop"] = (...of) =>
        callWithin(plugin.timeoutSeconds, () => fitted.rankTop(...of));
      const { scale, floor, parameters } = fitted;
      return {
        scale,
        floor,
        parameters,
        ...(typeof fitted.rankTop === "function" ? { rankTop: ranked } : {}),
      } as never;
    },
  };
}

function inPython(
  plugin: NamedPlugin,
  opened: Extract<OpenModule, { kind: "remote" }>,
  { config }: Surroundings,
): BroughtPreRanker {
  const { python, knowItems } = opened;
  if (!python || !knowItems)
    throw pluginMisfit(
      plugin,
      "a pre-ranker must be a script or a Python function: training data is not sent over HTTP",
    );
  return {
    fit: async ({ numItems, sequences, times }) => {
      const folder = mkdtempSync(join(tmpdir(), "gr2-training-"));
      const path = join(folder, "training.json");
      try {
        const lists = (of: readonly ArrayLike<number>[]) => of.map((values) => Array.from(values));
        writeFileSync(
          path,
          JSON.stringify({ numItems, sequences: lists(sequences), times: lists(times), seed: config.seed }),
        );
        const fit = await python("fit", { path, items: await knowItems() });
        return {
          rankTop: async (histories, n, _repeats, users) => {
            const asked = { fit, histories: lists(histories), n, users: users ?? [] };
            const lists_ = (await python("rank", asked)) as readonly [readonly number[], readonly number[]][];
            return lists_.map((pair) => ({ items: pair?.[0], scores: pair?.[1] }));
          },
        };
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
  };
}

async function guard<T>(plugin: NamedPlugin, what: string, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (e) {
    if (e instanceof Gr2Error) throw e;
    throw pluginFault(plugin, `${describeThrown(e, plugin)} when ${what}`, e);
  }
}

interface Wanted {
  readonly histories: readonly Int32Array[];
  readonly n: number;
  readonly repeats: Repeats;
  readonly users: readonly number[] | undefined;
}

async function rank(
  plugin: NamedPlugin,
  fitted: FittedPreRanker,
  { histories, n, repeats, users }: Wanted,
  { numItems }: TrainingView,
  datasetHash: string,
): Promise<readonly Ranked[]> {
  const name = (k: number): string =>
    users?.[k] === undefined
      ? `a history of ${histories[k]?.length} items`
      : `slate ${slateId(datasetHash, users[k], histories[k]?.length ?? 0)}`;
  const about =
    histories.length === 1
      ? `asked about ${name(0)}`
      : `asked about ${histories.length} histories, the first of ${name(0)}`;
  const lists = await guard(plugin, about, () => fitted.rankTop(histories, n, repeats, users));
  if (!Array.isArray(lists) || lists.length !== histories.length)
    throw pluginFault(
      plugin,
      `returned ${show(lists)}, not a list with an entry for each of ${histories.length} histories`,
    );
  return lists.map((list: Partial<Ranked> | null | undefined, k) => {
    const seen = repeats === "unseen" ? new Set(histories[k]) : new Set<number>();
    const fault = findFault(list, numItems, seen);
    if (fault !== undefined) throw pluginFault(plugin, `gave ${show(list)} for ${name(k)}: ${fault}`);
    const { items, scores } = list as Ranked;
    return items.length <= n ? { items, scores } : { items: items.slice(0, n), scores: scores.slice(0, n) };
  });
}

/** What is wrong with a list, in words. @param seen items that it must not contain */
function findFault(
  list: Partial<Ranked> | null | undefined,
  numItems: number,
  seen: ReadonlySet<number>,
): string | undefined {
  const items = list?.items;
  const scores = list?.scores;
  if (items?.length === undefined || scores?.length === undefined) return "expected {items, scores}";
  if (items.length !== scores.length) return `${items.length} items and ${scores.length} scores`;
  const met = new Set<number>();
  for (let i = 0; i < items.length; i++) {
    const [item, score] = [items[i] as number, scores[i] as number];
    if (!Number.isInteger(item) || item < 0 || item >= numItems)
      return `${show(item)} is not an item row (0 to ${numItems - 1})`;
    if (!Number.isFinite(score)) return `the score of item ${item} is ${show(score)}`;
    if (i > 0 && score > (scores[i - 1] as number)) return `item ${item} has a higher score than the one before it`;
    if (met.has(item)) return `item ${item} appears twice`;
    if (seen.has(item)) return `item ${item} is in the history`;
    met.add(item);
  }
  return undefined;
}
