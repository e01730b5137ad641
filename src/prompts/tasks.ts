/**
 * The four mid-training tasks (after OneRec-Think, GR2 v1 §3). Each renders one document as pieces; the first is given,
 * the rest are learned.
 */
import type { Item } from "../data/types.ts";
import { item, marker, type Piece, text } from "./pieces.ts";

/** (1) Sequential preference: a history of semantic IDs; every next ID is learned. */
export const sequentialTask = (rows: ArrayLike<number>): Piece[] => [
  marker("history"),
  ...(Array.prototype.map.call(rows, (row: number) => item(row)) as Piece[]),
];

/** What is known of an item, in words. */
export function describe(it: Item): string {
  const parts = [it.title || "untitled"];
  if (it.brand) parts.push(`by ${it.brand}`);
  if (it.categories.length) parts.push(`in ${it.categories.join(", ")}`);
  return `${parts.join(" ")}.${it.description ? ` ${it.description}` : ""}`;
}

/** Most tokens of an item's description, so that what follows (its ID or the end) is still learned. */
const maxDescription = 400;
const maxTitle = 64;

/** (2) Itemic dense captioning: ID -> words, or words -> ID. */
export const captioningTask = (row: number, it: Item, direction: "describe" | "identify"): Piece[] => {
  const words = text(describe(it), maxDescription);
  return direction === "describe"
    ? [marker("item"), item(row), marker("text"), words, marker("end")]
    : [marker("text"), words, marker("item"), item(row), marker("end")];
};

/** (3) Interleaved user persona grounding: IDs and words mixed in one history. */
export function personaTask(
  rows: ArrayLike<number>,
  itemAt: (row: number) => Item,
  categories: readonly string[],
): Piece[] {
  const pieces: Piece[] = [
    marker("persona"),
    text(categories.length ? `likes ${categories.join(", ")}; chose` : "chose"),
  ];
  for (let i = 0; i < rows.length; i++) {
    const row = rows[i] as number;
    pieces.push(text(` ${itemAt(row).title || "untitled"}`, maxTitle), item(row));
  }
  pieces.push(marker("end"));
  return pieces;
}

/** (4) General language: plain text. */
export const languageTask = (paragraph: string): Piece[] => [marker("text"), text(paragraph), marker("end")];

/**
 * A history in words only, for a model without semantic IDs; a title follows (titlePiece). @param titles oldest first
 */
export const titlesTask = (titles: readonly string[]): Piece[] => [
  text(`What one person chose, in this order:\n${titles.map((title) => `- ${title}\n`).join("")}-`),
];

export const titlePiece = (title: string): Piece => text(` ${title}`, maxTitle);
