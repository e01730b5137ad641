/**
 * The worker's verbs and the Python behind each: what a stage declares, so that its cache key covers that code too. Apart
 * from code-hash.ts, so that how keys are made is no code of a stage.
 */
import type { WorkerClient } from "../worker/types.ts";

/** What a stage may ask of the worker. Verbs that compute nothing (health, versions) belong to every stage. */
export type Verb = Exclude<keyof WorkerClient, "address" | "getInfo" | "shutdown" | "stats" | "close">;

const engine = "engine.py";
const quantizer = "items/quantizer.py";

/** The module behind each verb, below python_worker/gr2_worker. */
export const verbModules: Readonly<Record<Verb, string>> = {
  trainTokenizer: "items/bpe.py",
  embed: "items/embed.py",
  factorize: "items/factorize.py",
  fitTrees: "trees.py",
  fitCrossEncoder: "cross_encoder.py",
  fitSemanticIds: quantizer,
  encodeSemanticIds: quantizer,
  loadModel: engine,
  unloadModel: engine,
  forward: engine,
  forwardBackward: engine,
  optimStep: engine,
  sample: engine,
  beamSearch: engine,
  saveState: engine,
  loadState: engine,
  exportModel: engine,
};

/** All verbs over a loaded language model. */
export const modelVerbs: readonly Verb[] = (Object.keys(verbModules) as Verb[]).filter(
  (v) => verbModules[v] === engine,
);
