/**
 * Checks what beam search promises: for every prompt exactly min(width, items left) rows of the trie, best first, none
 * twice, none excluded. A worker that broke this would put items into slates that nobody proposed.
 */
import { WorkerError } from "../core/errors.ts";
import type { BeamSearchRequest, BeamSearchResult } from "./types.ts";

/** Throws WorkerError that names the first prompt whose result breaks the contract. */
export function checkBeams(request: BeamSearchRequest, { rows, logprobs }: BeamSearchResult): void {
  const { prompts, beamWidth, trie, excluded } = request;
  const refuse = (what: string): never => {
    throw new WorkerError(`beam search broke its contract: ${what}`, {
      retryable: false,
      advice: "This is a bug in the worker, or the worker has another version.",
    });
  };
  for (const [name, matrix] of Object.entries({ rows, logprobs }))
    if (matrix.rows !== prompts.length || matrix.cols !== beamWidth)
      refuse(`${name} is ${matrix.rows} x ${matrix.cols} for ${prompts.length} prompts and width ${beamWidth}`);
  const known = new Set(trie.rows);
  prompts.forEach((_, prompt) => {
    const barred = new Set(excluded?.[prompt] ?? []);
    const expected = Math.min(beamWidth, known.size - barred.size);
    const seen = new Set<number>();
    let before = 1e-3; // at most 0, up to rounding
    for (let k = 0; k < beamWidth; k++) {
      const row = rows.data[prompt * beamWidth + k] as number;
      const logprob = logprobs.data[prompt * beamWidth + k] as number;
      const where = `prompt ${prompt}, position ${k + 1}`;
      if (k >= expected) {
        if (row !== -1) refuse(`${where}: row ${row} although none is left`);
        continue;
      }
      if (!known.has(row)) refuse(`${where}: there is no item row ${row}`);
      if (seen.has(row)) refuse(`${where}: row ${row} appears twice`);
      if (barred.has(row)) refuse(`${where}: row ${row} was excluded`);
      if (!(logprob <= before && logprob > -Infinity)) refuse(`${where}: log-prob ${logprob} after ${before}`);
      seen.add(row);
      before = logprob;
    }
  });
}
