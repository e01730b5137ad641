/** Number types of settings, and bounds that stages use too. */
import { z } from "zod";

export const share = z.number().min(0).max(1);
export const positive = z.number().positive();
export const count = z.int().positive();
export const countOrZero = z.int().nonnegative();

/** Maximum candidates of any slate, logged ones included. */
export const maxCandidates = 100;
