/**
 * What embedded-worker.test.ts starts and kills: an orchestrator with an embedded worker that is idle or computing.
 * Prints {"pid": ...} of the worker once it serves (and, if computing, once it has begun).
 */
import { exitCodes, InterruptedError } from "../../src/core/errors.ts";
import { handleInterrupts } from "../../src/worker/interrupt.ts";
import { startWorker } from "../../src/worker/launcher.ts";

const computing = process.argv[2] === "computing";
const { signal, dispose } = handleInterrupts();
const worker = await startWorker({ mode: "embedded", threads: 1 }, signal);
const ready = () => process.stdout.write(`${JSON.stringify({ pid: worker.pid })}\n`);
try {
  if (computing) {
    const rows = 2000;
    const cols = 64;
    const data = Float32Array.from({ length: rows * cols }, (_, i) => Math.sin(i * 12.9898) * 2);
    let begun = false;
    const config = {
      method: "rqvae",
      levels: 3,
      codes: 64,
      latentDim: 16,
      hiddenDims: [64],
      epochs: 1_000_000,
      batchSize: 256,
      learningRate: 1e-3,
      commitment: 0.25,
      emaDecay: 0.95,
      kmeansInit: true,
      randomLastLevel: true,
      diversityWeight: 0,
      deadCodeResetEpochs: 0,
      contrastiveWeight: 0,
      contrastiveTemperature: 0.1,
      seed: 0,
    } as const;
    await worker.client.fitSemanticIds({ embeddings: { rows, cols, data }, config }, () => {
      if (!begun) ready();
      begun = true;
    });
  } else {
    ready();
    await new Promise<void>((_, reject) => {
      const keepAlive = setInterval(() => {}, 1000);
      signal.addEventListener("abort", () => {
        clearInterval(keepAlive);
        reject(new InterruptedError());
      });
    });
  }
} catch (e) {
  if (!(e instanceof InterruptedError)) throw e;
  process.exitCode = exitCodes.INTERRUPTED;
} finally {
  await worker.close();
  dispose();
}
