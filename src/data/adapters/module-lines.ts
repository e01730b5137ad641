/** Records of a JSON-lines file written for a user's Python function. */
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";

export async function* readJsonLines(file: string): AsyncGenerator<unknown> {
  for await (const line of createInterface({
    input: createReadStream(file, "utf8"),
    crlfDelay: Number.POSITIVE_INFINITY,
  }))
    if (line !== "") yield JSON.parse(line) as unknown;
}
