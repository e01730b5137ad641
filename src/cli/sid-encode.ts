/** `gr2 sid encode`: parses arguments, starts a worker if needed, and prints a one-line summary. */

import { encodeItems } from "../commands/encode-items.ts";
import { ConfigError } from "../core/errors.ts";
import { RunFolder } from "../run/run-folder.ts";
import type { WorkerClient } from "../worker/types.ts";
import { withWorkerOnDemand } from "./worker-on-demand.ts";

export interface SidEncodeArguments {
  readonly name: string;
  readonly root: string;
  readonly items: string;
  readonly out: string;
  /** `field=column`. */
  readonly column: readonly string[];
  /** For tests: a fake worker instead of a Python one. */
  readonly worker?: WorkerClient;
}

const fields = ["id", "title", "brand", "categories", "description"] as const;

export async function sidEncode(args: SidEncodeArguments, log: (message: string) => void): Promise<string> {
  const run = RunFolder.view(args.root, args.name);
  const columns = Object.fromEntries(args.column.map(parseColumn));
  const { known, earlier, added } = await withWorkerOnDemand(args.worker, (o) =>
    encodeItems({ run, items: args.items, columns, out: args.out, log, ...o }),
  );
  const rest = [
    ...(known > 0 ? [`${known} keep their ID from the run`] : []),
    ...(earlier > 0 ? [`${earlier} were already in ${args.out}`] : []),
  ];
  return `${added} new items got a semantic ID${rest.map((r) => `; ${r}`).join("")}: ${args.out}`;
}

function parseColumn(assignment: string): [field: string, column: string] {
  const [field = "", ...column] = assignment.split("=");
  if (!fields.some((f) => f === field) || column.join("=") === "")
    throw new ConfigError(`--column ${assignment}: expected FIELD=COLUMN with one of the fields ${fields.join(", ")}`, {
      advice: "For example: --column id=sku --column title=name",
    });
  return [field, column.join("=")];
}
