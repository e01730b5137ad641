/**
 * Direct mode as a service compared with the usual ways to re-rank, on the same slates: a cross-encoder of the same
 * width and depth through sentence-transformers, and transformers' generate() writing the order (peers/serve.py).
 * Slates per second, one at a time and 32 at once. Unlike the peers, the service also pays for gRPC and a second
 * process.
 */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { tokenizerFile } from "../src/artifacts/weights.ts";
import { loadConfig } from "../src/config/load.ts";
import { EnvironmentError } from "../src/core/errors.ts";
import { repositoryRoot } from "../src/core/paths.ts";
import { loadDataset } from "../src/data/cache.ts";
import { RunFolder } from "../src/run/run-folder.ts";
import type { Measurement } from "./claim.ts";
import { closedLoop, type LoadedRequest, makeAsk, type Service } from "./serve-load.ts";

const atOnce = 32;
const names = { cross_encoder: "CrossEncoder of the same size", generate: "generate() of the same size" } as const;

type Peers = Readonly<Record<keyof typeof names, Record<"one" | "batch", { slates: number; seconds: number }>>>;

/** @param threads of the service's worker; the peers get as many */
export async function besidePeers(
  emit: (measured: Measurement) => void,
  service: Service,
  requests: readonly LoadedRequest[],
  run: { readonly root: string; readonly name: string; readonly threads: number; readonly seconds: number },
): Promise<void> {
  const folder = RunFolder.view(run.root, run.name);
  const config = loadConfig(folder.file("config.resolved.yaml"));
  const { items } = await loadDataset(folder.file("stages", "data"));
  const titles = new Map<string, string>(items.map((item) => [item.id, item.title]));
  const getTitle = ({ itemId }: { readonly itemId: string }): string => titles.get(itemId) ?? "";
  const job = {
    architecture: config.model.architecture,
    tokenizer: tokenizerFile(folder.file("stages", "midtrain")),
    slates: requests.slice(0, 512).map(({ history, candidates }) => ({
      history: history.slice(-config.prompts.historyItems).map(getTitle),
      candidates: candidates.map(getTitle),
    })),
    answer_tokens: config.sid.levels,
    batch: atOnce,
    seconds: run.seconds,
    threads: run.threads,
  };
  const own = { one: 0, batch: 0 };
  const counted = { one: 0, batch: 0 };
  const callers = { one: 1, batch: atOnce };
  for (const which of ["one", "batch"] as const) {
    const asks = makeAsk(requests, "direct");
    await closedLoop(service, asks, callers[which], Math.min(2, run.seconds)); // warm
    const load = await closedLoop(service, asks, callers[which], run.seconds);
    own[which] = load.perSecond;
    counted[which] = load.ms.length;
  }
  await service.stop();
  const peers = measured(job);
  for (const which of ["one", "batch"] as const)
    for (const peer of ["cross_encoder", "generate"] as const) {
      const { slates, seconds } = peers[peer][which];
      emit({
        ...{ claim: `serve/direct, ${callers[which]} at once: slates`, value: own[which], unit: "1/s" },
        ...{ n: counted[which], peer: `${names[peer]} (n = ${slates})`, peerValue: slates / seconds },
      });
    }
}

function measured(job: object): Peers {
  const run = spawnSync(join(repositoryRoot, ".venv/bin/python"), [join(repositoryRoot, "bench/peers/serve.py")], {
    encoding: "utf8",
    input: JSON.stringify(job),
    maxBuffer: 1 << 26,
  });
  if (run.status !== 0)
    throw new EnvironmentError(`the peers failed: ${run.stderr.trim().split("\n").at(-1) ?? run.error}`);
  return JSON.parse(run.stdout) as Peers;
}
