/**
 * The worker's verbs and the Python module that implements each. Stages declare the verbs they call, so their cache
 * keys cover that code. Separate from code-hash.ts, so that a stage does not depend on how keys are made.
 */
import type { WorkerClient } from "../worker/types.ts";

/** What a stage may ask of the worker. Every stage may use the methods that compute nothing (health, versions). */
export type Verb = Exclude<keyof WorkerClient, "address" | "getInfo" | "shutdown" | "stats" | "close">;

const engine = "engine.py";
const quantizer = "items/quantizer.py";

/** The module that implements each verb, below python_worker/gr2_worker. */
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

/** All verbs that need a loaded language model. */
export const modelVerbs: readonly Verb[] = (Object.keys(verbModules) as Verb[]).filter(
  (v) => verbModules[v] === engine,
);
