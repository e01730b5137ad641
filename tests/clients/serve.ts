/**
 * The service for the clients: its real HTTP and gRPC servers, over a re-ranker that turns the order around, so that an
 * answer is known. Prints a line with its two addresses and its token; ends when its standard input does.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startGrpcServer } from "../../src/serve/grpc/server.ts";
import { Metrics } from "../../src/serve/observe/metrics.ts";
import { newToken } from "../../src/serve/security/tokens.ts";
import { FakeReranker, servedModel, startService } from "../serve-fixture.ts";

const folder = mkdtempSync(join(tmpdir(), "gr2-clients-"));
const { token, line } = newToken("clients");
const tokens = join(folder, "tokens");
writeFileSync(tokens, line);
const reranker = new FakeReranker();
reranker.loaded = { ...servedModel, limits: { ...servedModel.limits, maxCandidates: 1000 } };
const service = await startService({ security: { tokens } }, reranker);
const grpc = await startGrpcServer({
  ...{ reranker, security: service.security, host: "127.0.0.1", port: 0 },
  ...{ maxRequestBytes: 4 << 20, defaultDeadlineMs: 2_000, metrics: new Metrics(), log: () => {}, access: () => {} },
});
process.stdout.write(`${service.url} 127.0.0.1:${grpc.port} ${token}\n`);
process.stdin.resume();
process.stdin.on("end", () => {
  rmSync(folder, { recursive: true, force: true });
  process.exit(0);
});
