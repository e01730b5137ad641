/**
 * What is at a path, and a recipe that reads it: look (heads of files), recognise (layout), measure (through the
 * adapter, as the data stage would), propose. Not a stage; writes nothing.
 */
import { availableParallelism, totalmem } from "node:os";
import { basename, join } from "node:path";
import { adapterOptions } from "../artifacts/dataset.ts";
import { compileConfig, inherit } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { Gr2Error } from "../core/errors.ts";
import { type Duck, openDuck } from "../data/duck.ts";
import { recognise } from "../data/inspect/layouts.ts";
import { type FolderView, lookAt } from "../data/inspect/look.ts";
import { type Core, defaultLimits, type Limits, type Measured, measure } from "../data/inspect/measure.ts";
import { type Advice, advise } from "../data/inspect/propose.ts";
import type { Recognised } from "../data/inspect/recogniser.ts";
import { modelShape } from "../models/base-model.ts";
import { addedTokens } from "../models/language-model.ts";
import { planMemory } from "../plan/memory.ts";
import { estimateTime, type StageTime } from "../plan/time.ts";
import { speedOfCore } from "./core-speed.ts";

export interface Inspection {
  readonly view: FolderView;
  /** Undefined: no layout that GR2 knows. */
  readonly found?: Recognised;
  /** Undefined if there is nothing to read or reading failed; `fault` then says why. */
  readonly measured?: Measured;
  readonly fault?: string;
  readonly advice: readonly Advice[];
  /** What a run of the recipe would take here. */
  readonly cost?: Cost;
  /** A whole recipe, for compileConfig. */
  readonly recipe?: Tree;
}

/** For this machine when idle: minutes from measured rates, and the worker's peak memory. */
export interface Cost {
  readonly cores: number;
  readonly stages: readonly StageTime[];
  readonly minutes: number;
  readonly memoryBytes: number;
  readonly fits: boolean;
}

type Tree = { [key: string]: unknown };

/** Throws DataError if there is nothing at the path. */
export async function inspect(path: string, limits: Limits = defaultLimits): Promise<Inspection> {
  const duck = await openDuck();
  let look: { view: FolderView; found?: Recognised };
  try {
    look = await find(duck, path, foldersWithin);
  } finally {
    duck.close();
  }
  const { view, found } = look;
  if (found === undefined) return { view, advice: [] };
  const name = basename(view.folder).replace(/[^\w.-]+/g, "-") || "data";
  const recipe: Tree = {
    extends: "",
    description: `${name}: ${found.layout}.`,
    data: { name, path: view.folder, ...found.settings },
    ...found.more,
  };
  try {
    const { data } = compileConfig({ ...recipe, extends: undefined }, "the proposed recipe");
    const options = adapterOptions(data);
    const files = [found.interactions, ...(found.items ? [found.items] : []), ...(found.others ?? [])];
    const measured = await measure(options, files, limits, data.minRating);
    const advice = advise(measured, String(found.settings.adapter));
    for (const a of advice) put(recipe, a.setting.split("."), a.value);
    const config = compileConfig(inherit(recipe, "."), "the proposed recipe");
    const cost = estimateCost(config, measured);
    return { view, found, measured, advice, recipe, ...(cost ? { cost } : {}) };
  } catch (e) {
    if (!(e instanceof Gr2Error)) throw e;
    return { view, found, advice: [], fault: e.message };
  }
}

/** Memory and minutes of a recipe on this machine's cores. */
function estimateCost(config: Config, measured: Measured): Cost | undefined {
  const left = measured.left[config.data.minInteractions as Core] ?? measured.left[0];
  const shape = modelShape(config);
  if (shape === undefined) return undefined;
  const added = addedTokens(config).length;
  const cores = config.runtime.threads > 0 ? config.runtime.threads : availableParallelism();
  const stages = estimateTime(config, shape, added, { ...left, textLength: measured.textLength }, cores, speedOfCore());
  const memory = planMemory(config, shape, added, { kind: "cpu", memoryBytes: totalmem() });
  return {
    ...{ cores, stages, memoryBytes: memory.peak, fits: memory.fits },
    minutes: stages.reduce((sum, s) => sum + s.seconds, 0) / 60,
  };
}

/** How deep archives nest their data, as in `KuaiRec 2.0/data/big_matrix.csv`. */
const foldersWithin = 2;

/** The layout at the path or, if there is none, of the first sub-folder with one; the others are named. */
async function find(duck: Duck, path: string, depth: number): Promise<{ view: FolderView; found?: Recognised }> {
  const view = await lookAt(duck, path);
  const found = recognise(view);
  if (found !== undefined) return { view, found };
  if (depth === 0 || view.only !== undefined) return { view };
  const inner: { view: FolderView; found: Recognised }[] = [];
  for (const name of view.subfolders.slice(0, 20)) {
    const within = await find(duck, join(view.folder, name), depth - 1);
    if (within.found) inner.push({ view: within.view, found: within.found });
  }
  const [first, ...more] = inner;
  if (first === undefined) return { view };
  if (more.length === 0) return first;
  const note = `there is data in ${inner.map((i) => i.view.folder).join(", ")}; the recipe below is for the first, the others need recipes of their own`;
  return { view: first.view, found: { ...first.found, notes: [note, ...first.found.notes] } };
}

function put(tree: Tree, path: readonly string[], value: unknown): void {
  const [key = "", ...rest] = path;
  if (rest.length === 0) tree[key] = value;
  else {
    tree[key] = { ...(tree[key] as Tree | undefined) };
    put(tree[key] as Tree, rest, value);
  }
}
