/** Process entry point: it exits quietly if its pipe is closed, and a leaked handle cannot keep it alive. */
import { main } from "./program.ts";

const exitGraceMs = 3_000;

process.stdout.on("error", (e: NodeJS.ErrnoException) => {
  if (e.code === "EPIPE") process.exit(0); // `gr2 … | head`
  throw e;
});
process.exitCode = await main(process.argv.slice(2));
setTimeout(() => process.exit(), exitGraceMs).unref();
