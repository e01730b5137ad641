/** POST /v1/items: items that the model does not know, registered beforehand. */
import { z } from "zod";
import type { ItemReference, RegisteredCount } from "../request/types.ts";
import { parseBody } from "./dialects/dialect.ts";

export const itemsPath = "/v1/items";

const id = z.union([z.string(), z.int().transform(String)]);

export const itemsBody = z.strictObject({
  items: z.array(
    z.strictObject({
      item_id: id
        .optional()
        .describe("The id that later requests use. Without one, only the text is encoded and remembered."),
      text: z.string().describe("Title, or title and more."),
    }),
  ),
});

export const itemsAnswer = z.object({
  version: z.int().describe("Total number of registrations so far."),
  registered: z.int().describe("New, or with a changed text."),
  unchanged: z.int().describe("Registered before with this text, or without an id."),
  known: z.int().describe("The model knows them by id or title: nothing changes."),
  request_id: z.string(),
});

/** @throws Refusal */
export const readItems = (body: unknown): ItemReference[] =>
  parseBody(itemsBody, body).items.map(({ item_id, text }) => ({
    ...(item_id === undefined ? {} : { itemId: item_id }),
    text,
  }));

export const renderRegistered = (count: RegisteredCount, requestId: string): z.output<typeof itemsAnswer> => ({
  ...count,
  request_id: requestId,
});
