/**
 * Identity of a fitted tokenizer: a file next to its artifact that names, by hash, everything an ID depends on. IDs are
 * permanent, so an artifact that does not belong to the catalogue, or a different embedder, is refused.
 * Pure; the stage writes it, `gr2 sid encode` checks it.
 */
import { CheckpointError } from "../core/errors.ts";
import { hashJson, sha256 } from "../core/hash.ts";
import type { Catalogue } from "./catalogue.ts";

/** The model that texts go through before they are quantised. */
export interface Embedder {
  /** As the recipe names it. */
  readonly model: string;
  /** SHA-256 of the model's files, or of its name if it is not a local folder. */
  readonly hash: string;
  /** Item fields joined into the text. */
  readonly fields: readonly string[];
  readonly dims: number;
}

export interface TokenizerIdentity {
  readonly schema: "gr2.tokenizer/1";
  readonly artifact: { readonly sha256: string; readonly bytes: number };
  readonly catalogue: { readonly hash: string; readonly items: number; readonly uniqueness: number };
  readonly embedder: Embedder;
  readonly data: { readonly name: string; readonly hash: string };
  /** The settings of the fit (sid) and its seed. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly seed: number;
  /** Of the worker that fitted it. */
  readonly versions: Readonly<Record<string, string>>;
  /** SHA-256 of the other fields: the tokenizer's own name. */
  readonly hash: string;
}

export interface TokenizerParts extends Pick<TokenizerIdentity, "embedder" | "data" | "config" | "seed" | "versions"> {
  readonly artifact: Uint8Array;
  readonly catalogue: Catalogue;
}

export function buildIdentity({ artifact, catalogue, embedder, data, config, seed, versions }: TokenizerParts) {
  const content: Omit<TokenizerIdentity, "hash"> = {
    schema: "gr2.tokenizer/1",
    artifact: { sha256: sha256(artifact), bytes: artifact.byteLength },
    catalogue: { hash: catalogue.hash(), items: catalogue.numItems, uniqueness: catalogue.uniqueness() },
    embedder,
    data,
    config,
    seed,
    versions,
  };
  return { ...content, hash: hashJson(content) } satisfies TokenizerIdentity;
}

/**
 * The identity, checked against its artifact and catalogue. Throws CheckpointError if it is damaged or does not match
 * either of them.
 */
export function checkIdentity(value: unknown, artifact: Uint8Array, catalogue: Catalogue): TokenizerIdentity {
  const refuse = (message: string): never => {
    throw new CheckpointError(message, {
      advice:
        "Put back the files the stage sid wrote, or rerun it with gr2 pipeline --from sid (which assigns new IDs).",
    });
  };
  const identity = value as TokenizerIdentity | undefined;
  if (identity?.schema !== "gr2.tokenizer/1") return refuse("the tokenizer has no identity this version can read");
  const { hash, ...content } = identity;
  if (hashJson(content) !== hash) refuse("the identity of the tokenizer does not match its own hash");
  if (identity.catalogue.hash !== catalogue.hash())
    refuse(`the tokenizer belongs to catalogue ${identity.catalogue.hash}, this one is ${catalogue.hash()}`);
  const found = sha256(artifact);
  if (identity.artifact.sha256 !== found)
    refuse(`the quantizer artifact is ${found}, the tokenizer of this catalogue is ${identity.artifact.sha256}`);
  return identity;
}
