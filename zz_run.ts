import { loadConfig, configHash } from "./src/config/load.ts";
import { Run } from "./src/run/run.ts";
import { runStages, resolvedYaml } from "./src/stages/pipeline.ts";
import { stageNames } from "./src/stages/stage.ts";
import { TelemetryBus } from "./src/worker/telemetry.ts";
async function main() {
  const until = process.env.UNTIL;
  const config = loadConfig(process.argv[2]!, process.argv.slice(4));
  const bus = new TelemetryBus("x");
  let last = 0;
  bus.on((e: any) => { if (e.kind==="log") console.log("  ", e.text); if (e.kind==="stage") console.log(new Date().toISOString().slice(11,19), e.stage, e.state, e.seconds?.toFixed(1) ?? "", e.note ?? ""); if (e.kind==="progress" && Date.now()-last>20000) { last=Date.now(); console.log("   ..", e.done, e.total, e.note);} });
  const signal = new AbortController().signal;
  const run = await Run.open({ root: "/tmp/runs", name: process.argv[3]!, configYaml: resolvedYaml(config), configHash: configHash(config), seed: config.seed, stages: stageNames, signal, bus, until, from: process.env.FROM } as any);
  const m = await runStages(run, { config, root: "/tmp/runs", name: process.argv[3]!, signal, bus });
  await run.close("finished");
  if (m) { for (const c of m.comparisons) if (c.slice==="conditional" && c.metric==="N@5" && c.baseline==="prerank" && process.env.TEST) console.log(c.system.padEnd(22), c.baseline, c.delta.toFixed(4), c.ci_low.toFixed(4), c.ci_high.toFixed(4)); const v = m.selected.validation; for (const [k,x] of Object.entries(v)) console.log(k.padEnd(22), "V dN5", (x - v.prerank!).toFixed(4)); console.log(m.selected.system, m.health, m.timings); }
  process.exit(0);
}
main().catch(e => { console.error(e); process.exit(1); });
