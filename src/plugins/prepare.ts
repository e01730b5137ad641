/** Opens every module that a recipe names before anything is computed; says what they add to the stages' keys. */
import { hashJson } from "../core/hash.ts";
import type { Manifest } from "../run/manifest.ts";
import type { PluginPoint } from "../run/stage.ts";
import { openAdapter } from "./adapter.ts";
import { openBaselines, openMetrics } from "./evaluation.ts";
import type { PluginIdentity } from "./identity.ts";
import { pluginsAt } from "./named.ts";
import type { Surroundings } from "./open.ts";
import { openPreRanker } from "./prerank.ts";
import { openReward } from "./reward.ts";
import { openTeacher } from "./teacher.ts";

/** Opens the modules of an extension point and checks them against its contract. */
const openers: Readonly<Record<PluginPoint, (around: Surroundings) => Promise<readonly PluginIdentity[]>>> = {
  adapter: async (around) => list(await openAdapter(around)),
  prerank: async (around) => list(await openPreRanker(around, "")),
  teacher: async (around) => list(await openTeacher(around)),
  reward: async (around) => {
    const { identity } = await openReward(around);
    return identity ? [identity] : [];
  },
  metrics: async (around) => (await openMetrics(around)).map(({ identity }) => identity),
  baselines: async (around) => (await openBaselines(around)).map(({ identity }) => identity),
};

const list = (opened: { readonly identity: PluginIdentity } | undefined): readonly PluginIdentity[] =>
  opened ? [opened.identity] : [];

export type Prepared = Readonly<Record<PluginPoint, readonly PluginIdentity[]>>;

/** Throws ConfigError for the first module that does not fit its extension point. */
export async function preparePlugins(around: Omit<Surroundings, "items">): Promise<Prepared> {
  const prepared: Record<string, readonly PluginIdentity[]> = {};
  for (const [point, open] of Object.entries(openers))
    prepared[point] =
      pluginsAt(around.config, point as PluginPoint).length > 0 ? await open({ ...around, items: [] }) : [];
  return prepared as Prepared;
}

/** What these extension points add to a stage's key, by setting. */
export const pluginInputs = (prepared: Prepared, points: readonly PluginPoint[]): Record<string, string> =>
  Object.fromEntries(
    points.flatMap((point) =>
      prepared[point].map(({ setting, module, version, sha256 }) => [
        `plugin ${setting}`,
        hashJson({ module, version, sha256 }),
      ]),
    ),
  );

/** As the manifest names them. */
export const manifestEntries = (prepared: Prepared): Manifest["plugins"] =>
  Object.fromEntries(
    Object.values(prepared)
      .flat()
      .map(({ setting, files, packages, ...entry }) => [
        setting,
        { ...entry, files: [...files], packages: { ...packages } },
      ]),
  );
