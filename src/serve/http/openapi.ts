/** The OpenAPI 3.1 document of the service, generated from the schemas that parse its requests. */
import { z } from "zod";
import type { LimitSettings } from "../../config/schema/serve-http.ts";
import type { Dialect } from "./dialects/dialect.ts";
import { ownError } from "./dialects/dialect.ts";
import { itemsAnswer, itemsBody, itemsPath } from "./items.ts";
import { Problem, type ProblemCode, problemStatus } from "./problem.ts";
import { getRoutes, type RerankRoute, rerankRoutes } from "./routes.ts";

type Json = Record<string, unknown>;

/** Errors of a re-rank request. */
const refusals: readonly (readonly [code: ProblemCode, meaning: string])[] = [
  ["syntax", "The body is not JSON in UTF-8."],
  ["invalid", "A field is missing, has the wrong type, or breaks a rule."],
  ["unauthenticated", "No valid token."],
  ["too_large", "A limit is exceeded."],
  ["unsupported_media", "Unsupported content type, or a compressed body."],
  ["rate_limited", "Too many requests from this client; Retry-After says when to retry."],
  ["overloaded", "The service is overloaded; Retry-After says when to retry."],
  ["internal", "An error in the service."],
  ["unavailable", "No model is loaded, or shutting down."],
];

export function openApi(limits: LimitSettings): Json {
  const paths: Record<string, Json> = {};
  for (const route of rerankRoutes) paths[route.path] = { post: rerankOperation(route) };
  paths[itemsPath] = {
    post: {
      summary: "Register items that the model does not know",
      operationId: "register_items",
      requestBody: { required: true, content: content([itemsBody]) },
      responses: {
        200: { description: "The items are encoded and stored.", content: content([itemsAnswer]) },
        ...Object.fromEntries(
          refusals.map(([code, meaning]) => [problemStatus[code], errorResponse(meaning, [ownError])]),
        ),
      },
    },
  };
  for (const [path, { public: open, summary }] of Object.entries(getRoutes))
    paths[path] = {
      get: {
        summary,
        ...(open ? { security: [] } : {}),
        responses: {
          200: { description: "OK" },
          ...(open ? {} : { 401: errorResponse("No valid token.", [ownError]) }),
        },
      },
    };
  return {
    openapi: "3.1.0",
    info: {
      title: "GR2 re-ranker",
      version: "1",
      description:
        `Re-orders candidates for a user's history. Limits: ${limits.maxCandidates} candidates, ` +
        `${limits.maxHistory} history items, ${limits.maxTextBytes} bytes per text, ` +
        `${limits.maxRequestBytes} bytes per request; /gr2/v1/model lists the model's limits.`,
    },
    security: [{ bearer: [] }, {}],
    paths,
    components: { securitySchemes: { bearer: { type: "http", scheme: "bearer" } } },
  };
}

function rerankOperation({ path, dialects }: RerankRoute): Json {
  const responses: Record<string, Json> = {
    200: {
      description: "The ranking, best first.",
      headers: {
        "x-request-id": header("Yours, if you sent one."),
        "x-gr2-fallback": header("Why your own order was returned; absent if the model answered."),
        "x-gr2-model-version": header("Equal versions give equal answers."),
        "x-gr2-truncated": header("Number of texts that were cut; absent if none."),
      },
      content: content(dialects.map((d) => d.answer)),
    },
  };
  const byStatus = new Map<number, { meanings: Set<string>; errors: Set<z.ZodType> }>();
  for (const dialect of dialects)
    for (const [code, meaning] of refusals) {
      const { status } = dialect.refuse(new Problem(code, meaning), "");
      const entry = byStatus.get(status) ?? { meanings: new Set(), errors: new Set() };
      entry.meanings.add(meaning);
      entry.errors.add(dialect.error);
      byStatus.set(status, entry);
    }
  for (const [status, { meanings, errors }] of byStatus)
    responses[status] = errorResponse([...meanings].join(" "), [...errors]);
  return {
    summary: `Re-rank: ${dialects.map((d: Dialect) => d.name).join(", ")}`,
    operationId: `rerank${path.replace(/\W+/g, "_")}`,
    parameters: [
      parameter("x-gr2-mode", { type: "string", enum: ["think", "direct"], default: "direct" }),
      parameter("x-gr2-deadline-ms", { type: "integer", minimum: 0, default: 0 }),
      parameter("x-gr2-on-fallback", { type: "string", enum: ["own-order", "error"] }),
      parameter("x-gr2-candidate-order", { type: "string", enum: ["ranked", "arbitrary"] }),
    ],
    requestBody: { required: true, content: content(dialects.map((d) => d.body)) },
    responses,
  };
}

const header = (description: string): Json => ({ description, schema: { type: "string" } });

const parameter = (name: string, schema: Json): Json => ({ name, in: "header", required: false, schema });

const errorResponse = (description: string, schemas: readonly z.ZodType[]): Json => ({
  description,
  content: content(schemas),
});

const content = (schemas: readonly z.ZodType[]): Json => {
  const [first, ...more] = schemas.map(jsonSchema);
  return { "application/json": { schema: more.length === 0 ? first : { anyOf: [first, ...more] } } };
};

function jsonSchema(schema: z.ZodType): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: "input", unrepresentable: "any", reused: "inline" });
  return rest;
}
