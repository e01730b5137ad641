/** The modules that a recipe names at each extension point, with their settings. */
import { isAddress } from "../config/paths.ts";
import type { Config } from "../config/schema.ts";
import { ConfigError, RunError } from "../core/errors.ts";
import type { PluginPoint } from "../run/stage.ts";

export interface NamedPlugin {
  /** The setting that names it: "rl.reward". */
  readonly setting: string;
  /** Absolute path, with the function's name if it is Python; or an address. */
  readonly module: string;
  readonly version: string;
  readonly options: Readonly<Record<string, unknown>>;
  readonly timeoutSeconds: number;
}

export type Language = "script" | "python" | "http";

const pythonFunction = /^(.+\.py):([A-Za-z_]\w*)$/;

export function findLanguage({ module, setting }: Pick<NamedPlugin, "module" | "setting">): Language {
  if (isAddress(module)) return "http";
  if (pythonFunction.test(module)) return "python";
  if (/\.[cm]?[jt]s$/.test(module)) return "script";
  throw new ConfigError(
    module.endsWith(".py")
      ? `${setting}.module = ${module}: the name of the Python function is missing`
      : `${setting}.module = ${module}: ` +
          `neither a .ts, .mts, .js, .mjs or .cjs file, nor FILE.py:FUNCTION, nor http(s)://`,
    { advice: "Write, for example, ./mine.ts or ./mine.py:score (docs/plugins.md)." },
  );
}

/** "/a/mine.py:score" → its file and the function's name; undefined for another language. */
export function splitPython(module: string): { readonly file: string; readonly name: string } | undefined {
  const [, file, name] = pythonFunction.exec(module) ?? [];
  return file === undefined || name === undefined ? undefined : { file, name };
}

/** The file of a module; undefined for an address. */
export const findFile = (module: string): string | undefined =>
  isAddress(module) ? undefined : (splitPython(module)?.file ?? module);

/** The modules at one extension point; empty if the recipe names none. */
export function pluginsAt(config: Config, point: PluginPoint): readonly NamedPlugin[] {
  const one = (setting: string, settings: Omit<NamedPlugin, "setting">): NamedPlugin[] =>
    settings.module === "" ? [] : [pick(setting, settings)];
  const several = (setting: string, byName: Readonly<Record<string, string | Omit<NamedPlugin, "setting">>>) =>
    Object.entries(byName).flatMap(([name, s]) => (typeof s === "string" ? [] : one(`${setting}.${name}`, s)));
  switch (point) {
    case "adapter":
      return one("data", config.data);
    case "prerank":
      return one("prerank", config.prerank);
    case "teacher":
      return one("teacher", config.teacher);
    case "reward":
      return one("rl.reward", config.rl.reward);
    case "metrics":
      return several("eval.metrics", config.eval.metrics);
    case "baselines":
      return several("eval.baselines", config.eval.baselines);
  }
}

const pick = (setting: string, s: Omit<NamedPlugin, "setting">): NamedPlugin => ({
  ...{ setting, module: s.module, version: s.version, options: s.options, timeoutSeconds: s.timeoutSeconds },
});

/** A module failed while running: names the setting and the module. */
export const pluginFault = (plugin: NamedPlugin, what: string, cause?: unknown): RunError =>
  new RunError(`${plugin.setting}: ${plugin.module} ${what}`, {
    cause,
    advice: "Finished work is kept: fix the module and run the same command again.",
  });

/** A module that does not fit its extension point. */
export const pluginMisfit = (plugin: NamedPlugin, what: string, cause?: unknown): ConfigError =>
  new ConfigError(`${plugin.setting}.module = ${plugin.module}: ${what}`, { cause, advice: "See docs/plugins.md." });
