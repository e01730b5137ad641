/**
 * What lies at a path, and the recipe that reads it: look (heads of files), recognise (layout), measure (through the
 * adapter, as the data stage would), propose. No stage; writes nothing.
 */
import { basename } from "node:path";
import { adapterOptions } from "../artifacts/dataset.ts";
import { compileConfig } from "../config/load.ts";
import { Gr2Error } from "../core/errors.ts";
import { openDuck } from "../data/duck.ts";
import { type Recognised, recognise } from "../data/inspect/layouts.ts";
import { type FolderView, lookAt } from "../data/inspect/look.ts";
import { defaultLimits, type Limits, type Measured, measure } from "../data/inspect/measure.ts";
import { type Advice, advise } from "../data/inspect/propose.ts";

export interface Inspection {
  readonly view: FolderView;
  /** Undefined: nothing that GR2 knows. */
  readonly found?: Recognised;
  /** Undefined if there is nothing to read, or it could not be read; then `fault` says why. */
  readonly measured?: Measured;
  readonly fault?: string;
  readonly advice: readonly Advice[];
  /** A whole recipe, for compileConfig. */
  readonly recipe?: Tree;
}

type Tree = { [key: string]: unknown };

/** Throws DataError if there is nothing at the path. */
export async function inspect(path: string, limits: Limits = defaultLimits): Promise<Inspection> {
  const duck = await openDuck();
  let view: FolderView;
  try {
    view = await lookAt(duck, path);
  } finally {
    duck.close();
  }
  const found = recognise(view);
  if (found === undefined) return { view, advice: [] };
  const name = basename(view.folder).replace(/[^\w.-]+/g, "-") || "data";
  const recipe: Tree = {
    description: `${name}: ${found.layout}.`,
    data: { name, path: view.folder, ...found.settings },
    ...found.more,
  };
  try {
    const { data } = compileConfig(recipe, "the proposed recipe");
    const options = adapterOptions(data);
    const files = [found.interactions, ...(found.items ? [found.items] : []), ...(found.others ?? [])];
    const measured = await measure(options, files, limits, data.minRating);
    const advice = advise(measured, String(found.settings.adapter));
    for (const a of advice) put(recipe, a.setting.split("."), a.value);
    compileConfig(recipe, "the proposed recipe");
    return { view, found, measured, advice, recipe };
  } catch (e) {
    if (!(e instanceof Gr2Error)) throw e;
    return { view, found, advice: [], fault: e.message };
  }
}

function put(tree: Tree, path: readonly string[], value: unknown): void {
  const [key = "", ...rest] = path;
  if (rest.length === 0) tree[key] = value;
  else {
    tree[key] = { ...(tree[key] as Tree | undefined) };
    put(tree[key] as Tree, rest, value);
  }
}
