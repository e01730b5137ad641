/** A real worker with a token, and one for serving, seen from the orchestrator. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startWorker } from "../../src/worker/launcher.ts";
import { startWorkerProcess } from "../../src/worker/process.ts";
import { defaultPythonBin, pythonEnvironment } from "../../src/worker/python.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-token-"));
const tokenFile = join(folder, "worker.token");
let worker: ChildProcess;
let address = "";

beforeAll(async () => {
  writeFileSync(tokenFile, "a-secret-of-the-operator\n");
  worker = spawn(
    defaultPythonBin(),
    [
      ...["-m", "gr2_worker", "--address", "0.0.0.0:0", "--device", "cpu", "--threads", "1"],
      ...["--token-file", tokenFile, "--root", folder],
    ],
    { env: pythonEnvironment(), stdio: ["ignore", "pipe", "ignore"] },
  );
  const lines = createInterface({ input: worker.stdout as NodeJS.ReadableStream });
  const [line] = (await once(lines, "line")) as [string];
  address = line.replace("0.0.0.0", "127.0.0.1");
}, 120_000);
afterAll(async () => {
  worker.kill("SIGTERM");
  await once(worker, "exit");
  rmSync(folder, { recursive: true, force: true });
});

it("a worker beyond loopback answers callers with its token, and writes only in its roots", async () => {
  const wrong = join(folder, "wrong.token");
  writeFileSync(wrong, "another-secret-altogether");
  for (const file of ["", wrong])
    await expect(startWorker({ mode: "remote", address, tokenFile: file })).rejects.toThrow("rejects this token");
  await expect(startWorker({ mode: "remote", address, tokenFile: join(folder, "none") })).rejects.toThrow(
    "cannot be read",
  );
  writeFileSync(wrong, "short");
  await expect(startWorker({ mode: "remote", address, tokenFile: wrong })).rejects.toThrow("does not contain a token");
  const remote = await startWorker({ mode: "remote", address, tokenFile });
  expect((await remote.client.getInfo()).device).toContain("cpu");
  await expect(remote.client.embed({ modelPath: "/etc", texts: ["a"], batchSize: 1 })).rejects.toThrow(
    "outside the folders",
  );
  await remote.close();
}, 60_000);

it("the service's own workers offer only the verbs of inference", async () => {
  const own = await startWorkerProcess(
    { threads: 1, device: "cpu" },
    join(folder, "own.log"),
    new AbortController().signal,
  );
  await expect(own.client.saveState({ path: join(folder, "stolen") })).rejects.toThrow("started for serving");
  await expect(own.client.trainTokenizer({ texts: [], vocabSize: 300, specialTokens: [] })).rejects.toThrow(
    "started for serving",
  );
  await own.close();
}, 120_000);
