/** Content hashes. One algorithm (SHA-256) and one canonical JSON, so equal things hash equally everywhere. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";

export const sha256 = (data: string | Uint8Array): string => createHash("sha256").update(data).digest("hex");

export async function sha256File(path: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest("hex");
}

/** JSON with object keys sorted at every level; throws on NaN and infinities, which JSON cannot hold. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, v: unknown) => {
    if (typeof v === "number" && !Number.isFinite(v)) throw new TypeError(`cannot hash the number ${v}`);
    if (v === null || typeof v !== "object" || Array.isArray(v)) return v;
    return Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
  });
}

export const hashJson = (value: unknown): string => sha256(canonicalJson(value));
