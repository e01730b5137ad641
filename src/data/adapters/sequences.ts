/**
 * The field's `sequential_data.txt` (TIGER, P5, S3-Rec, OneRec-Think): a line a user, `user item item ...`, time order;
 * with items as JSONL. No clock: time is the position. Example: `{kind: "sequences", path: "../shared/data/beauty"}`.
 */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { type Duck, linesOf, type Quarantine, requireFile } from "../duck.ts";
import { readItemTable } from "./items.ts";
import { type AdapterReport, writeItems } from "./readers.ts";

export interface SequencesOptions {
  readonly kind: "sequences";
  /** Folder. */
  readonly path: string;
  /** Default "sequential_data.txt". */
  readonly interactions?: string;
  /** Default "items.jsonl"; used when it exists. */
  readonly items?: string;
}

export async function loadSequences(
  duck: Duck,
  options: SequencesOptions,
  quarantine: Quarantine,
): Promise<AdapterReport> {
  const file = join(options.path, options.interactions ?? "sequential_data.txt");
  requireFile(file, "Sequences");
  const appender = await duck.connection.createAppender("raw_interactions");
  const users = new Set<string>();
  let rowsRead = 0;
  try {
    for await (const { line, text } of linesOf(file)) {
      const [user, ...items] = text.trim().split(/[ \t]+/);
      rowsRead += Math.max(1, items.length);
      quarantine.saw(file, 1);
      const reason =
        user === undefined || items.length === 0
          ? "a user without items"
          : users.has(user)
            ? `user ${user} has a line already`
            : undefined;
      if (reason !== undefined || user === undefined) {
        quarantine.add({ file, line, reason: reason ?? "empty", text });
        continue;
      }
      users.add(user);
      items.forEach((item, position) => {
        appender.appendVarchar(user);
        appender.appendVarchar(item);
        appender.appendNull();
        appender.appendDouble(position);
        appender.endRow();
      });
    }
  } finally {
    appender.closeSync();
  }
  const itemFile = join(options.path, options.items ?? "items.jsonl");
  const hasItems = options.items !== undefined || existsSync(itemFile);
  if (hasItems) {
    const columns = {
      id: "item_id",
      title: "title",
      brand: "brand",
      categories: "categories",
      description: "description",
    };
    await writeItems(duck, readItemTable(duck, itemFile, columns, quarantine));
  }
  return {
    files: hasItems ? [file, itemFile] : [file],
    rowsRead,
    hasItems,
    hasClock: false,
    notes: ["no timestamps: the position in the line is the time"],
  };
}
