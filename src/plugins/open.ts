/** Opens a module in any language: a script's default export, or a remote function called with JSON. */
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import type { Config } from "../config/schema.ts";
import { Gr2Error } from "../core/errors.ts";
import type { Item } from "../data/types.ts";
import { askHttp, Refused } from "./http.ts";
import { identify, type PluginIdentity, requireFile } from "./identity.ts";
import { callWithin, Overdue } from "./limits.ts";
import { findFile, findLanguage, type NamedPlugin, pluginMisfit, splitPython } from "./named.ts";
import { packAnswers, type Question } from "./pack.ts";
import { PythonRaised, pythonHost } from "./python.ts";
import type { PluginSetup } from "./setup.ts";

/** The context in which a module is opened. */
export interface Surroundings {
  readonly config: Config;
  /** Items that slates may refer to. */
  readonly items: readonly Item[];
  readonly signal?: AbortSignal;
  /** Receives what Python prints, unless Python is already running. */
  readonly logPath?: string;
}

export type OpenModule = { readonly identity: PluginIdentity } & (
  | {
      readonly kind: "script";
      /** Its default export; if that is a function, its result for the options. */
      readonly value: unknown;
    }
  | {
      readonly kind: "remote";
      /** One reply per question, in their order, unchecked. */
      readonly ask: (questions: readonly Question[]) => Promise<unknown>;
      /** Python only: calls its other functions, with the same time limit. */
      readonly python?: (fn: "fit" | "rank" | "read", request: Readonly<Record<string, unknown>>) => Promise<unknown>;
      /** Python only: the key by which requests refer to the items. */
      readonly knowItems?: () => Promise<number>;
    }
);

/** Throws ConfigError for a module that cannot be opened. */
export async function openModule(plugin: NamedPlugin, around: Surroundings): Promise<OpenModule> {
  requireFile(plugin);
  switch (findLanguage(plugin)) {
    case "script":
      return { kind: "script", identity: identify(plugin), value: await importScript(plugin, around.config.seed) };
    case "python":
      return openPython(plugin, around);
    case "http":
      if (plugin.version === "")
        throw pluginMisfit(plugin, "its code runs elsewhere and cannot be hashed: declare its version (version: …)");
      return {
        kind: "remote",
        identity: identify(plugin),
        ask: (questions) => askHttp(plugin, questions, around.signal),
      };
  }
}

async function importScript(plugin: NamedPlugin, seed: number): Promise<unknown> {
  let exported: { readonly default?: unknown };
  try {
    exported = (await import(/* @vite-ignore */ pathToFileURL(plugin.module).href)) as typeof exported;
  } catch (cause) {
    throw pluginMisfit(plugin, `it cannot be imported: ${describeThrown(cause, plugin)}`, cause);
  }
  // A CommonJS module arrives as the default of its namespace.
  const made = exported.default;
  const value =
    typeof made === "object" && made !== null && "default" in made && "__esModule" in made
      ? (made as { default: unknown }).default
      : made;
  if (value === undefined)
    throw pluginMisfit(plugin, `it has no default export; it exports ${Object.keys(exported).join(", ") || "nothing"}`);
  if (typeof value !== "function") return value;
  const setup: PluginSetup = { options: plugin.options, seed };
  try {
    return await callWithin(plugin.timeoutSeconds, () => (value as (setup: PluginSetup) => unknown)(setup));
  } catch (cause) {
    if (cause instanceof Gr2Error) throw cause;
    throw pluginMisfit(plugin, `its default export ${describeThrown(cause, plugin)}`, cause);
  }
}

async function openPython(plugin: NamedPlugin, { config, items, logPath }: Surroundings): Promise<OpenModule> {
  const { file, name } = splitPython(plugin.module) as { file: string; name: string };
  const host = await pythonHost(config, logPath);
  let packages: Readonly<Record<string, string>>;
  try {
    const files = identify(plugin).files.map((f) => join(dirname(file), f));
    packages = await callWithin(Math.max(plugin.timeoutSeconds, importSeconds), () => host.load(file, name, files));
  } catch (cause) {
    if (cause instanceof PythonRaised || cause instanceof Overdue) throw pluginMisfit(plugin, cause.message, cause);
    throw cause;
  }
  let stuck = false;
  const bounded = async (work: () => Promise<unknown>): Promise<unknown> => {
    if (stuck) throw new Overdue(plugin.timeoutSeconds);
    try {
      return await callWithin(plugin.timeoutSeconds, work);
    } catch (e) {
      if (e instanceof Overdue) stuck = true; // the call keeps running and only ending the process stops it
      throw e;
    }
  };
  const common = { file, name, options: plugin.options };
  return {
    kind: "remote",
    identity: identify(plugin, packages),
    async ask(questions) {
      const known = await host.know(items);
      const packed = packAnswers(questions, items);
      return bounded(() => host.call({ ...common, items: known, ...packed }));
    },
    python: (fn, request) => bounded(() => host.ask(fn, { ...common, ...request })),
    knowItems: () => host.know(items),
  };
}

/** Cold imports of large packages take minutes. */
const importSeconds = 300;

/** "threw TypeError: … (mine.ts:3:7)"; "gave no answer within 60 s". */
export function describeThrown(e: unknown, plugin: NamedPlugin): string {
  if (e instanceof Overdue || e instanceof Refused) return e.message;
  if (!(e instanceof Error)) return `threw ${String(e)}`;
  if (e instanceof PythonRaised) return `raised ${e.message}`;
  const folder = findFile(plugin.module)?.replace(/[^/]*$/, "");
  const line =
    folder === undefined ? undefined : e.stack?.split("\n").find((l) => /^\s+at /.test(l) && l.includes(folder));
  const at = line === undefined ? undefined : /([^/()]+:\d+:\d+)\)?$/.exec(line)?.[1];
  return `threw ${e.name}: ${e.message}${at === undefined ? "" : ` (${at.replace(/\?[^:]*/, "")})`}`;
}
