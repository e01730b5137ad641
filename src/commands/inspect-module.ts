/** What a user's adapter reads: counts, the first records, malformed ones, and a recipe that uses it. */
import { resolve } from "node:path";
import { compileConfig } from "../config/load.ts";
import { ConfigError } from "../core/errors.ts";
import { loadRaw } from "../data/adapters/index.ts";
import { openDuck, Quarantine } from "../data/duck.ts";
import { openAdapter } from "../plugins/adapter.ts";
import { closePlugins } from "../plugins/python.ts";

export interface ModuleInspection {
  readonly rowsRead: number;
  readonly malformed: number;
  /** "FILE:LINE: REASON" */
  readonly firstMalformed?: string;
  readonly interactions: number;
  readonly users: number;
  readonly items: number;
  /** Size of the item table; undefined without one. */
  readonly catalogue?: number;
  readonly unknownItems: number;
  /** Seconds. */
  readonly time?: { readonly first: number; readonly last: number };
  readonly firstInteractions: readonly Readonly<Record<string, unknown>>[];
  readonly firstItems: readonly Readonly<Record<string, unknown>>[];
  readonly notes: readonly string[];
  readonly recipe: { readonly data: Readonly<Record<string, unknown>> };
}

export interface ModuleSource {
  readonly path: string;
  readonly module: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly version: string;
}

/** Reads everything, as stage data would. Throws an error that names what the adapter does wrong. */
export async function inspectModule({ path, module, options, version }: ModuleSource): Promise<ModuleInspection> {
  const data = {
    path: path === "" ? "" : resolve(path),
    module: /^https?:/.test(module) ? module : resolve(module),
    ...(Object.keys(options).length > 0 ? { options } : {}),
    ...(version === "" ? {} : { version }),
  };
  const config = compileConfig({ data }, "gr2 data inspect");
  const duck = await openDuck();
  try {
    const adapter = await openAdapter({ config, items: [] });
    if (!adapter) throw new ConfigError("--module needs a file", { advice: "For example --module ./lake.ts." });
    const quarantine = new Quarantine();
    const report = await loadRaw(duck, adapter.options, quarantine);
    const count = (sql: string): Promise<number> => duck.number(`SELECT ${sql}`);
    const [first] = quarantine.kept;
    return {
      rowsRead: report.rowsRead,
      malformed: quarantine.count(),
      ...(first ? { firstMalformed: `${first.file}:${first.line}: ${first.reason}` } : {}),
      interactions: await count("count(*) FROM raw_interactions"),
      users: await count("count(DISTINCT u) FROM raw_interactions"),
      items: await count("count(DISTINCT i) FROM raw_interactions"),
      ...(report.hasItems ? { catalogue: await count("count(DISTINCT i) FROM raw_items") } : {}),
      unknownItems: report.hasItems
        ? await count("count(*) FROM raw_interactions WHERE i NOT IN (SELECT i FROM raw_items)")
        : 0,
      ...(report.hasClock
        ? {
            time: {
              first: await count("min(t) FROM raw_interactions"),
              last: await count("max(t) FROM raw_interactions"),
            },
          }
        : {}),
      firstInteractions: await duck.rows(
        'SELECT u AS "user", i AS item, t AS time, r AS rating FROM raw_interactions LIMIT 3',
      ),
      firstItems: await duck.rows("SELECT i AS id, title, categories FROM raw_items ORDER BY n LIMIT 3"),
      notes: report.notes,
      recipe: { data },
    };
  } finally {
    duck.close();
    await closePlugins();
  }
}
