/** The reward that a recipe names, built in or the user's: opened, and checked against the reward contract. */
import { builtInReward } from "../reward/kinds.ts";
import type { Answer, Score } from "../reward/reward.ts";
import { type About, type Asked, askChecked, openFunction } from "./contract.ts";
import type { PluginIdentity } from "./identity.ts";
import { type NamedPlugin, pluginsAt } from "./named.ts";
import { type OpenModule, openModule, type Surroundings } from "./open.ts";

export interface OpenReward {
  /** One finite score per answer. Throws RunError that names the module, the slate and the value. */
  score(answers: readonly Answer[]): Promise<readonly Score[]>;
  /** Only for a user's module. */
  readonly identity: PluginIdentity | undefined;
}

export async function openReward(around: Surroundings): Promise<OpenReward> {
  const [plugin] = pluginsAt(around.config, "reward");
  const opened = plugin ? await openModule(plugin, around) : openBuiltIn(around.config.rl.reward);
  const named = plugin ?? ours(around.config.rl.reward.kind);
  const asked: Asked<Answer> = openFunction(opened, named, "score", "a reward, {score(answers)}");
  return {
    identity: plugin && opened.identity,
    score: async (answers) => (await askChecked(named, asked, answers, about)).map(toScore),
  };
}

const toScore = (value: unknown): Score => (typeof value === "number" ? { value } : (value as Score));

const ours = (kind: string): NamedPlugin => ({
  ...{ setting: "rl.reward", module: kind, version: "", options: {}, timeoutSeconds: 60 },
});

/** The built-in rewards are opened like a user's script. */
function openBuiltIn(o: Surroundings["config"]["rl"]["reward"]): OpenModule {
  const { kind, ndcgK, dehacked } = o;
  if (kind === "module") throw new RangeError("a reward without a module");
  const identity = { setting: "rl.reward", module: kind, version: "", sha256: "", files: [], packages: {} };
  return { kind: "script", identity, value: builtInReward({ kind, ndcgK, dehacked }) };
}

const about: About<Answer> = {
  getSlate: ({ slate }) => slate.id,
  describe: ({ order }) => order.map((i) => `c${i + 1}`).join(" "),
  findFault: (value) => {
    if (typeof value === "number" ? Number.isFinite(value) : isScore(value)) return undefined;
    return "expected a finite number, or {value, parts?, because?} with one";
  },
};

function isScore(score: unknown): boolean {
  if (typeof score !== "object" || score === null || !("value" in score)) return false;
  const { value, parts = {} } = score as { value: unknown; parts?: unknown };
  // Built-in rewards write the sentence only on request.
  const own = Object.getOwnPropertyDescriptor(score, "because");
  const isText = own === undefined || typeof own.value === "string";
  return isText && [value, ...Object.values(parts ?? { parts })].every(Number.isFinite);
}
