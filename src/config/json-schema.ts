/** The schema of recipes as JSON Schema, for editors: every setting with its type, default and meaning. */
import { z } from "zod";
import { configSchema } from "./schema.ts";

export function configJsonSchema(): object {
  // Editors' YAML servers know draft 7. "input": settings with defaults are not required.
  const schema = z.toJSONSchema(configSchema, { io: "input", unrepresentable: "any", target: "draft-7" });
  return { ...schema, title: "GR2 recipe" };
}
