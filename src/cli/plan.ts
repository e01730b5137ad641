/** `gr2 plan`: device memory that a recipe needs, per stage; starts no worker and downloads nothing. */
import { execFileSync } from "node:child_process";
import { totalmem } from "node:os";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { ConfigError } from "../core/errors.ts";
import { checkBaseModel, planModelMemory } from "../models/base-model.ts";
import { addedTokens } from "../models/language-model.ts";
import { type Device, type MemoryPlan, parts, usable } from "../plan/memory.ts";
import { knownModels } from "../plan/shape.ts";
import { columns } from "./format.ts";

export interface PlanArguments {
  readonly config: string;
  readonly set: readonly string[];
  /** Device memory in GiB; default: this machine's. */
  readonly memory?: number;
  readonly json?: boolean;
}

const gib = 2 ** 30;

export function plan(args: PlanArguments): string {
  const config = loadConfig(args.config, args.set);
  checkBaseModel(config);
  const device = chooseDevice(config, args.memory);
  const found = planModelMemory(config, addedTokens(config).length, device);
  if (!found)
    throw new ConfigError(`model.path = ${config.model.path}: its dimensions are unknown`, {
      advice: `Use a folder with a config.json, or one of ${knownModels.join(", ")}.`,
    });
  return args.json ? JSON.stringify({ device, ...found }) : renderPlan(config, found, device);
}

function renderPlan(config: Config, found: MemoryPlan, device: Device): string {
  const millions = (n: number): string => `${(n / 1e6).toFixed(n < 1e7 ? 2 : 0)}M`;
  const size = (bytes: number): string => (bytes === 0 ? "" : (bytes / gib).toFixed(2));
  const rows = found.phases.map((p) => [p.name, ...parts.map((part) => size(p.bytes[part])), size(p.total)]);
  const how = config.model.lora.rank > 0 ? `LoRA rank ${config.model.lora.rank}` : "full fine-tuning";
  const name = config.model.source === "scratch" ? "a model from scratch" : config.model.path;
  const has = `${(device.memoryBytes / gib).toFixed(1)} GiB of ${device.kind === "cuda" ? "GPU" : "host"} memory`;
  const verdict = found.fits
    ? `fits: ${size(found.peak)} of ${has}`
    : `does not fit: ${size(found.peak)} of ${has} (${Math.round(100 * usable)} % of it can be used)`;
  const advice = found.change.length > 0 ? [`to make it fit: ${found.change.map((c) => `--set ${c}`).join(" ")}`] : [];
  const none =
    !found.fits && found.change.length === 0 ? ["no setting makes it fit: use a smaller model or a larger device"] : [];
  return [
    `${name}: ${millions(found.parameters)} parameters, ${millions(found.trained)} trained (${how}, ` +
      `${config.runtime.dtype})`,
    "",
    columns([["GiB", ...parts, "total"], ...rows]),
    "",
    verdict,
    ...advice,
    ...none,
  ].join("\n");
}

/** The value of --memory, else the first GPU that nvidia-smi lists, else this machine. */
function chooseDevice(config: Config, memory: number | undefined): Device {
  const { device } = config.runtime;
  const gpu = memory === undefined && device !== "cpu" ? gpuMemory() : undefined;
  if (memory !== undefined) return { kind: device === "cpu" ? "cpu" : "cuda", memoryBytes: memory * gib };
  if (gpu !== undefined) return { kind: "cuda", memoryBytes: gpu };
  if (device === "cuda")
    throw new ConfigError("runtime.device = cuda, but this machine has no GPU", {
      advice: "Give the memory of your GPU: --memory GIB.",
    });
  return { kind: "cpu", memoryBytes: totalmem() };
}

function gpuMemory(): number | undefined {
  try {
    const query = ["--query-gpu=memory.total", "--format=csv,noheader,nounits"];
    const out = execFileSync("nvidia-smi", query, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
    const mebibytes = Number(out.trim().split("\n")[0]);
    return Number.isFinite(mebibytes) && mebibytes > 0 ? mebibytes * 2 ** 20 : undefined;
  } catch {
    return undefined;
  }
}
