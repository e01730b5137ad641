/** rerank.proto to the service's own types and back. Validation is in check.ts. */

import { BinaryReader } from "@bufbuild/protobuf/wire";
import { status } from "@grpc/grpc-js";
import * as pb from "../../client/generated/gr2/v1/rerank.ts";
import {
  type CandidateOrder,
  type FallbackReason,
  type ItemReference,
  type OnFallback,
  Refusal,
  type RefusalCode,
  type RerankAnswer,
  type RerankRequest,
  type ServedModel,
  type ServeMode,
} from "../request/types.ts";

const modes: Readonly<Record<ServeMode, pb.Mode>> = { think: pb.Mode.MODE_THINK, direct: pb.Mode.MODE_DIRECT };

const fallbacks: Readonly<Record<FallbackReason, pb.FallbackReason>> = {
  invalid_answer: pb.FallbackReason.FALLBACK_REASON_INVALID_ANSWER,
  deadline: pb.FallbackReason.FALLBACK_REASON_DEADLINE,
  worker_lost: pb.FallbackReason.FALLBACK_REASON_WORKER_LOST,
  overload: pb.FallbackReason.FALLBACK_REASON_OVERLOAD,
  shutting_down: pb.FallbackReason.FALLBACK_REASON_SHUTTING_DOWN,
};

const statuses: Readonly<Record<RefusalCode, status>> = {
  invalid: status.INVALID_ARGUMENT,
  too_large: status.RESOURCE_EXHAUSTED,
  unauthenticated: status.UNAUTHENTICATED,
  rate_limited: status.RESOURCE_EXHAUSTED,
  overloaded: status.RESOURCE_EXHAUSTED,
  unavailable: status.UNAVAILABLE,
};

export const toStatus = (refusal: Refusal): status => statuses[refusal.code];

/** proto3's empty string is "not given". */
const reference = ({ itemId, text }: pb.HistoryItem | pb.Candidate): ItemReference => ({
  ...(itemId === "" ? {} : { itemId }),
  ...(text === "" ? {} : { text }),
});

const onFallbacks: Readonly<Partial<Record<pb.OnFallback, OnFallback>>> = {
  [pb.OnFallback.ON_FALLBACK_OWN_ORDER]: "own-order",
  [pb.OnFallback.ON_FALLBACK_ERROR]: "error",
};

const candidateOrders: Readonly<Partial<Record<pb.CandidateOrder, CandidateOrder>>> = {
  [pb.CandidateOrder.CANDIDATE_ORDER_RANKED]: "ranked",
  [pb.CandidateOrder.CANDIDATE_ORDER_ARBITRARY]: "arbitrary",
};

/**
 * @param leftMs of the call's own deadline, Infinity without one: the shorter one counts
 * @param defaultMs if the message has no deadline
 */
export function toRequest(message: pb.RerankRequest, leftMs: number, defaultMs: number): RerankRequest {
  const onFallback = onFallbacks[message.onFallback];
  const candidateOrder = candidateOrders[message.candidateOrder];
  const left = Math.max(1, Math.floor(leftMs));
  return {
    history: message.history.map(reference),
    candidates: message.candidates.map((c) => ({
      id: c.id,
      ...reference(c),
      ...(c.score === undefined ? {} : { score: c.score }),
    })),
    topN: message.topN,
    mode: message.mode === pb.Mode.MODE_THINK ? "think" : "direct",
    deadlineMs: left < (message.deadlineMs || defaultMs) ? left : message.deadlineMs,
    ...(onFallback ? { onFallback } : {}),
    ...(candidateOrder ? { candidateOrder } : {}),
  };
}

export const toResponse = (answer: RerankAnswer): pb.RerankResponse => ({
  ranking: answer.ranking.map(({ id, position, score }) => ({ id, place: position, score })),
  thought: answer.reasoning,
  fallback: answer.fallback ? fallbacks[answer.fallback] : pb.FallbackReason.FALLBACK_REASON_UNSPECIFIED,
  timings: {
    queueMs: answer.timings.queue,
    encodeMs: answer.timings.encode,
    modelMs: answer.timings.model,
    totalMs: answer.timings.total,
  },
  tokens: { ...answer.tokens },
  modelVersion: answer.modelVersion,
});

export const toItems = ({ items }: pb.RegisterItemsRequest): ItemReference[] => items.map(reference);

export const toModel = (model: ServedModel, itemsVersion: number): pb.GetModelResponse => ({
  itemsVersion,
  name: model.name,
  version: model.version,
  hashes: { ...model.hashes },
  numParameters: model.numParameters,
  modes: model.modes.map((mode) => modes[mode]),
  thinkSystem: model.systems.think ?? "",
  directSystem: model.systems.direct ?? "",
  limits: { ...model.limits },
  recommendedSystem: model.recommendation.system,
  recommendation: model.recommendation.sentence,
  directPositionOdds: [...(model.positionOdds.direct ?? [])],
  thinkPositionOdds: [...(model.positionOdds.think ?? [])],
  directLift: model.lifts.direct,
  thinkLift: model.lifts.think,
});

/** Replaces a message that cannot be decoded. */
export interface Malformed {
  readonly malformed: true;
}

/**
 * A decoder that returns `Malformed` for bytes that are not such a message or contain invalid UTF-8. (grpc-js would
 * answer INTERNAL if the decoder threw, and generated code would silently repair invalid UTF-8.)
 */
export const lenient =
  <T extends object>(decode: (reader: BinaryReader) => T) =>
  (bytes: Uint8Array): T | Malformed => {
    try {
      return decode(new BinaryReader(bytes, (part) => strict.decode(part)));
    } catch {
      return { malformed: true };
    }
  };

/** Throws Refusal for a message that could not be decoded. */
export function wellFormed<T extends object>(message: T | Malformed): T {
  if ("malformed" in message)
    throw new Refusal("invalid", "the message is not a valid protobuf message of this method");
  return message;
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
