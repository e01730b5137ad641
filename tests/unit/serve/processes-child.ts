/**
 * A service of two processes on fake workers: `processes-child.ts ROOT NAME TOKENS`. Prints where it listens, and the process
 * of every answer. A worker whose process finds a file ROOT/sick-PID does not answer health checks.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { serveAsPeer } from "../../../src/cli/serve.ts";
import { isPeer } from "../../../src/serve/processes/peers.ts";
import { startProcesses } from "../../../src/serve/processes/primary.ts";
import { GatedWorker, lost } from "../../service-fixture.ts";

const [root = "", name = "", tokens = ""] = process.argv.slice(2);
const print = (line: string): void => void process.stdout.write(`${line}\n`);

if (isPeer())
  await serveAsPeer(
    {
      ...{ root, name, access: (record) => print(`answered by ${process.pid}: ${record.status}`) },
      overrides: [
        ...["serve.grpc.port=0", "serve.http.port=0", "serve.healthMs=50", "serve.lameDuckMs=0", "serve.system=rl"],
        `serve.security.tokens=${tokens}`,
      ],
      startWorker: async () => {
        const client = new GatedWorker();
        client.health = () => {
          if (existsSync(join(root, `sick-${process.pid}`))) throw lost();
        };
        return { client, close: async () => {} };
      },
    },
    print,
  );
else {
  const group = await startProcesses({ count: 2, log: print, signal: new AbortController().signal, backoffMs: [0] });
  process.on("SIGHUP", () => group.reload()).on("SIGTERM", () => void group.stop({ lameDuck: true }));
  print(`ready at ${group.started.http.url} and ${group.started.grpc.address}`);
}
