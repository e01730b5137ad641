/** Renders the schema as Markdown: every setting, its default and its meaning. */
import { z } from "zod";
import { unwrap } from "./load.ts";
import { configSchema } from "./schema.ts";

interface Row {
  readonly path: string;
  readonly type: string;
  readonly fallback: string;
  readonly description: string;
}

function describeType(node: z.ZodType | undefined): string {
  const inner = unwrap(node);
  if (inner instanceof z.ZodEnum) return inner.options.map(String).join(" \\| ");
  if (inner instanceof z.ZodArray) return `list of ${describeType(inner.element as z.ZodType)}`;
  if (inner instanceof z.ZodUnion) return inner.options.map((o) => describeType(o as z.ZodType)).join(" or ");
  if (inner instanceof z.ZodRecord) return "mapping";
  if (inner instanceof z.ZodPipe) return describeType(inner.in as z.ZodType);
  return inner?.type ?? "?";
}

function listRows(node: z.ZodType, defaults: unknown, prefix = ""): Row[] {
  const inner = unwrap(node);
  if (inner instanceof z.ZodObject)
    return Object.entries(inner.shape as Record<string, z.ZodType>).flatMap(([key, child]) =>
      listRows(child, (defaults as Record<string, unknown> | undefined)?.[key], prefix ? `${prefix}.${key}` : key),
    );
  return [
    {
      path: prefix,
      type: describeType(node),
      fallback: defaults === undefined ? "" : JSON.stringify(defaults).replaceAll("|", "\\|"),
      description: (node.description ?? "").replaceAll("|", "\\|"),
    },
  ];
}

/** Every leaf of the schema in order. */
export const configRows = (): Row[] => listRows(configSchema, configSchema.parse({}));

export function renderConfigDocs(): string {
  const lines = ["| setting | type | default | meaning |", "|---|---|---|---|"];
  for (const r of configRows()) lines.push(`| \`${r.path}\` | ${r.type} | \`${r.fallback}\` | ${r.description} |`);
  return lines.join("\n");
}
