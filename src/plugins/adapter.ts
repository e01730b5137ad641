/** The data adapter that a recipe names: opened, and checked against the adapter contract. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { Gr2Error } from "../core/errors.ts";
import { loadRecords, type ModuleOptions, type TakeRecords } from "../data/adapters/module.ts";
import { readJsonLines } from "../data/adapters/module-lines.ts";
import type { AdapterReport } from "../data/adapters/readers.ts";
import type { Adapter, BroughtSource } from "../data/brought.ts";
import { checkShape, isFunction } from "./contract.ts";
import type { PluginIdentity } from "./identity.ts";
import { callWithin } from "./limits.ts";
import { type NamedPlugin, pluginFault, pluginMisfit, pluginsAt } from "./named.ts";
import { describeThrown, openModule, type Surroundings } from "./open.ts";

const contract = z.union([z.looseObject({ read: isFunction }), z.looseObject({ load: isFunction })], {
  error: "it must have a function read(source), or load(duck, source, quarantine)",
});
const sourceShape = z.looseObject({ interactions: z.unknown().refine(isIterable, "it must be iterable") });
const reportShape = z.looseObject({
  files: z.array(z.string()).min(1, "the files it read (their content identifies the data)"),
  rowsRead: z.number(),
  hasItems: z.boolean(),
  hasClock: z.boolean(),
  notes: z.array(z.string()),
});

function isIterable(value: unknown): boolean {
  return typeof value === "object" && value !== null && (Symbol.iterator in value || Symbol.asyncIterator in value);
}

export interface OpenAdapter {
  readonly identity: PluginIdentity;
  readonly options: ModuleOptions;
}

/** Undefined if the recipe names none. */
export async function openAdapter(around: Surroundings): Promise<OpenAdapter | undefined> {
  const [plugin] = pluginsAt(around.config, "adapter");
  if (plugin === undefined) return undefined;
  const opened = await openModule(plugin, around);
  const { path } = around.config.data;
  const options = (load: ModuleOptions["load"]): ModuleOptions => ({
    ...{ kind: "module", path, identity: `${opened.identity.sha256} ${plugin.version}`, load },
  });
  if (opened.kind === "remote") {
    const { python } = opened;
    if (!python) throw pluginMisfit(plugin, "an adapter must be a script or a Python function, not an HTTP address");
    return {
      identity: opened.identity,
      options: options(async (duck, quarantine) => {
        const folder = mkdtempSync(join(tmpdir(), "gr2-source-"));
        try {
          const found = (await guard(plugin, () => python("read", { source: path, folder }))) as { items?: number };
          const lines = (name: string) => readJsonLines(join(folder, `${name}.jsonl`));
          const source = {
            interactions: lines("interactions"),
            ...(found.items === undefined ? {} : { items: lines("items") }),
          } as BroughtSource;
          return await loadRecords(duck, source, quarantine, plugin.module, takeWithin(plugin));
        } finally {
          rmSync(folder, { recursive: true, force: true });
        }
      }),
    };
  }
  const adapter = checkShape(contract, opened.value, plugin, "an adapter") as unknown as Adapter;
  return {
    identity: opened.identity,
    options: options(async (duck, quarantine): Promise<AdapterReport> => {
      if ("load" in adapter) {
        const report = await guard(plugin, () => adapter.load(duck, { path }, quarantine));
        return checkShape(reportShape, report, plugin, "an adapter: what load returned") as unknown as AdapterReport;
      }
      const source = await guard(plugin, () => callWithin(plugin.timeoutSeconds, () => adapter.read({ path })));
      checkShape(sourceShape, source, plugin, "an adapter: what read returned");
      return loadRecords(duck, source, quarantine, plugin.module, takeWithin(plugin));
    }),
  };
}

async function guard<T>(plugin: NamedPlugin, work: () => T | Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (e) {
    if (e instanceof Gr2Error) throw e;
    throw pluginFault(plugin, describeThrown(e, plugin), e);
  }
}

/** Records awaited together. */
const batch = 1000;

/** Each batch of records must arrive within the module's time limit. */
const takeWithin = (plugin: NamedPlugin): TakeRecords =>
  async function* take<T>(source: Iterable<T> | AsyncIterable<T>): AsyncGenerator<readonly T[]> {
    const records = source as Partial<Iterable<T> & AsyncIterable<T>>;
    const made = await guard(plugin, () => records[Symbol.asyncIterator]?.() ?? records[Symbol.iterator]?.());
    if (made === undefined) throw pluginFault(plugin, "returned records that cannot be iterated");
    let taken = 0;
    for (let done = false; !done; ) {
      const some: T[] = [];
      try {
        await callWithin(plugin.timeoutSeconds, async () => {
          while (some.length < batch && !done) {
            const next = await made.next();
            if (next.done) done = true;
            else some.push(next.value);
          }
        });
      } catch (e) {
        if (e instanceof Gr2Error) throw e;
        throw pluginFault(plugin, `${describeThrown(e, plugin)}, after ${taken + some.length} records`, e);
      }
      taken += some.length;
      yield some;
    }
  };
