"""proto <-> types, nothing else. Checks every length and alignment and raises InvalidRequest with the field's name.

Arrays travel as little-endian bytes (int32 or float32) and are copied, so that torch may own them.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from gr2.v1 import worker_pb2 as pb

from gr2_worker.errors import InvalidRequest
from gr2_worker.generation.trie import checked_trie
from gr2_worker.types import (
    AdamWParams,
    BeamParams,
    BeamResult,
    CrossEntropy,
    Distill,
    DrawnToken,
    Float32s,
    ForwardResult,
    ForwardSpec,
    GroupBatch,
    Int32s,
    Int64s,
    LoadSpec,
    LoraSpec,
    LossSpec,
    PermutationConstraint,
    Policy,
    SampledItem,
    SampleParams,
    TopTokens,
    TrainResult,
    TrainSpec,
    Trie,
    segment_starts,
)

NO_BOUND = 2**31 - 1
Number = TypeVar("Number", int, float)
# Rounding may put a probability of 1 slightly above it.
MAX_LOGPROB = 1e-4
METHODS = {
    pb.QUANTIZER_METHOD_RQVAE: "rqvae",
    pb.QUANTIZER_METHOD_RQKMEANS: "rqkmeans",
}

# ---------------------------------------------------------------- arrays


def ints(data: bytes, name: str) -> Int32s:
    """int32 [n] from bytes."""
    if len(data) % 4:
        raise InvalidRequest(f"{name} has {len(data)} bytes, not a multiple of 4")
    return np.frombuffer(data, dtype="<i4").astype(np.int32)


def floats(data: bytes, name: str, length: int | None = None) -> Float32s:
    """float32 [n] from bytes; `length`, if given, is enforced."""
    if len(data) % 4:
        raise InvalidRequest(f"{name} has {len(data)} bytes, not a multiple of 4")
    values = np.frombuffer(data, dtype="<f4").astype(np.float32)
    if length is not None and len(values) != length:
        raise InvalidRequest(f"{name} has {len(values)} elements, expected {length}")
    return values


def lengths(data: bytes, name: str, minimum: int) -> Int64s:
    """int64 [n] from int32 bytes, each at least `minimum`."""
    values = ints(data, name).astype(np.int64)
    if len(values) and values.min() < minimum:
        raise InvalidRequest(f"{name} contains {values.min()}, every element must be >= {minimum}")
    return values


def to_bytes(values: np.typing.NDArray[Any], kind: str) -> bytes:
    """Little-endian bytes; kind "<i4" or "<f4"."""
    return np.ascontiguousarray(values, dtype=kind).tobytes()


def matrix_in(message: Any, name: str, kind: str) -> np.typing.NDArray[Any]:
    """[rows, cols] from Matrix ("<f4") or IntMatrix ("<i4")."""
    if message.rows < 0 or message.cols < 0 or len(message.data) != 4 * message.rows * message.cols:
        raise InvalidRequest(f"{name} has {len(message.data)} bytes, expected {message.rows} x {message.cols} x 4")
    return np.frombuffer(message.data, dtype=kind).reshape(message.rows, message.cols).astype(kind[1:])


def matrix_out(values: np.typing.NDArray[Any]) -> pb.Matrix:
    return pb.Matrix(rows=values.shape[0], cols=values.shape[1], data=to_bytes(values, "<f4"))


def int_matrix_out(values: np.typing.NDArray[Any]) -> pb.IntMatrix:
    return pb.IntMatrix(rows=values.shape[0], cols=values.shape[1], data=to_bytes(values, "<i4"))


def _split(flat: Int32s, sizes: Int64s, name: str) -> list[Int32s]:
    if int(sizes.sum()) != len(flat):
        raise InvalidRequest(f"{name} has {len(flat)} elements, its lengths add up to {int(sizes.sum())}")
    return [flat[s : s + n] for s, n in zip(segment_starts(sizes).tolist(), sizes.tolist(), strict=True)]


def not_negative(value: Number, name: str) -> Number:
    """`value`, a finite number >= 0."""
    if not math.isfinite(value) or value < 0:
        raise InvalidRequest(f"{name} must be a finite number >= 0, got {value}")
    return value


def positive(value: Number, name: str) -> Number:
    """`value`, a finite number > 0."""
    if not math.isfinite(value) or value <= 0:
        raise InvalidRequest(f"{name} must be a finite number > 0, got {value}")
    return value


def _bound(value: int, name: str) -> int:
    """An upper bound; 0 = none."""
    return not_negative(value, name) or NO_BOUND


# ---------------------------------------------------------------- batches


def group_batch(message: pb.GroupBatch) -> GroupBatch:
    """Checks that tokens and the three length arrays agree."""
    batch = GroupBatch(
        ints(message.tokens, "batch.tokens"),
        lengths(message.prompt_lengths, "batch.prompt_lengths", 1),
        lengths(message.group_sizes, "batch.group_sizes", 1),
        lengths(message.response_lengths, "batch.response_lengths", 1),
    )
    if batch.num_groups == 0:
        raise InvalidRequest("batch is empty")
    if len(batch.group_sizes) != batch.num_groups:
        raise InvalidRequest(f"batch has {batch.num_groups} prompt_lengths, but {len(batch.group_sizes)} group_sizes")
    if int(batch.group_sizes.sum()) != batch.num_responses:
        raise InvalidRequest(
            f"batch.group_sizes add up to {int(batch.group_sizes.sum())}, "
            f"but there are {batch.num_responses} response_lengths"
        )
    expected = int(batch.prompt_lengths.sum()) + batch.num_targets
    if len(batch.tokens) != expected:
        raise InvalidRequest(f"batch.tokens has {len(batch.tokens)} elements, the lengths add up to {expected}")
    return batch


def constraint(request: Any) -> PermutationConstraint | None:
    """The constraint of a request, or None if it has none."""
    if not request.HasField("constraint"):
        return None
    message: pb.PermutationConstraint = request.constraint
    counts = lengths(message.sequence_counts, "constraint.sequence_counts", 0)
    sequence_lengths = lengths(message.sequence_lengths, "constraint.sequence_lengths", 1)
    tokens = ints(message.sequence_tokens, "constraint.sequence_tokens")
    total = int(counts.sum())
    if len(sequence_lengths) != total:
        raise InvalidRequest(f"constraint.sequence_lengths has {len(sequence_lengths)} elements, expected {total}")
    if int(sequence_lengths.sum()) != len(tokens):
        raise InvalidRequest(
            f"constraint.sequence_tokens has {len(tokens)} elements, expected {int(sequence_lengths.sum())}"
        )
    if message.max_sequences < 0:
        raise InvalidRequest("constraint.max_sequences must be >= 0")
    if message.max_free_tokens < 0:
        raise InvalidRequest("constraint.max_free_tokens must be >= 0")
    return PermutationConstraint(
        sequence_counts=counts,
        sequence_lengths=sequence_lengths,
        sequence_tokens=tokens,
        prior=floats(message.prior, "constraint.prior", total),
        scale=message.scale,
        trigger=tuple(message.trigger),
        separator=tuple(message.separator),
        terminator=tuple(message.terminator),
        max_sequences=message.max_sequences,
        whole_sequences=message.whole_sequences,
        max_free_tokens=message.max_free_tokens,
    )


def forward_spec(request: pb.ForwardRequest) -> ForwardSpec:
    return ForwardSpec(
        batch=group_batch(request.batch),
        constraint=constraint(request),
        temperature=positive(request.temperature, "temperature"),
        want_entropy=request.want_entropy,
        micro_batch_tokens=_bound(request.micro_batch_tokens, "micro_batch_tokens"),
        top_k=not_negative(request.top_k, "top_k"),
    )


def forward_response(result: ForwardResult, reused_prompt_tokens: int, weights_id: str) -> pb.ForwardResponse:
    response = pb.ForwardResponse(
        logprobs=to_bytes(result.logprobs, "<f4"), reused_prompt_tokens=reused_prompt_tokens, weights_id=weights_id
    )
    if result.entropy is not None:
        response.entropy = to_bytes(result.entropy, "<f4")
    if result.top is not None:
        response.top_ids.CopyFrom(int_matrix_out(result.top.ids))
        response.top_logprobs.CopyFrom(matrix_out(result.top.logprobs))
    return response


def train_spec(request: pb.ForwardBackwardRequest) -> TrainSpec:
    batch = group_batch(request.batch)
    weights = floats(request.weights, "weights", batch.num_targets)
    if not np.isfinite(weights).all():
        raise InvalidRequest("weights must be finite")
    return TrainSpec(
        batch=batch,
        weights=weights,
        loss=_loss(request.loss, batch.num_targets),
        constraint=constraint(request),
        temperature=positive(request.temperature, "temperature"),
        micro_batch_tokens=_bound(request.micro_batch_tokens, "micro_batch_tokens"),
        seed=request.seed,
        want_logprobs=request.want_logprobs,
    )


def _loss(message: pb.Loss, num_targets: int) -> LossSpec:
    kind = message.WhichOneof("kind")
    if kind == "cross_entropy":
        return CrossEntropy(not_negative(message.cross_entropy.negatives, "loss.cross_entropy.negatives"))
    if kind == "distill":
        return Distill(_teacher(message.distill, num_targets))
    if kind != "policy":
        raise InvalidRequest("loss is missing: set cross_entropy, policy or distill")
    policy = message.policy
    kl_coef = not_negative(policy.kl_coef, "loss.policy.kl_coef")
    reference = None
    if kl_coef > 0:
        reference = floats(policy.reference_logprobs, "loss.policy.reference_logprobs", num_targets)
    return Policy(
        advantages=floats(policy.advantages, "loss.policy.advantages", num_targets),
        old_logprobs=floats(policy.old_logprobs, "loss.policy.old_logprobs", num_targets),
        reference_logprobs=reference,
        clip_low=not_negative(policy.clip_low, "loss.policy.clip_low"),
        clip_high=not_negative(policy.clip_high, "loss.policy.clip_high"),
        kl_coef=kl_coef,
    )


def _teacher(message: pb.DistillLoss, num_targets: int) -> TopTokens:
    """Rows for every target, with a log-prob for every id."""
    ids = matrix_in(message.ids, "loss.distill.ids", "<i4")
    logprobs = matrix_in(message.logprobs, "loss.distill.logprobs", "<f4")
    if ids.shape != logprobs.shape or len(ids) != num_targets or ids.shape[1] < 1:
        raise InvalidRequest(
            f"loss.distill has ids {ids.shape} and logprobs {logprobs.shape}, "
            f"expected {num_targets} rows of at least one"
        )
    if np.isnan(logprobs).any() or logprobs.max() > MAX_LOGPROB or (np.isneginf(logprobs) != (ids < 0)).any():
        raise InvalidRequest(
            "loss.distill.logprobs must be log-probabilities, and -inf exactly where the id is negative"
        )
    return TopTokens(ids, logprobs)


def train_response(result: TrainResult) -> pb.ForwardBackwardResponse:
    return pb.ForwardBackwardResponse(
        loss=result.loss,
        metrics=result.metrics,
        logprobs=b"" if result.logprobs is None else to_bytes(result.logprobs, "<f4"),
        compute_seconds=result.compute_seconds,
    )


def adamw_params(request: pb.OptimStepRequest) -> AdamWParams:
    params = AdamWParams(
        learning_rate=not_negative(request.learning_rate, "learning_rate"),
        beta1=not_negative(request.beta1, "beta1"),
        beta2=not_negative(request.beta2, "beta2"),
        eps=positive(request.eps, "eps"),
        weight_decay=not_negative(request.weight_decay, "weight_decay"),
        max_grad_norm=not_negative(request.max_grad_norm, "max_grad_norm"),
    )
    if params.beta1 >= 1 or params.beta2 >= 1:
        raise InvalidRequest("beta1 and beta2 must be < 1")
    return params


# ---------------------------------------------------------------- generation


def _prompts(request: Any) -> list[Int32s]:
    sizes = lengths(request.prompt_lengths, "prompt_lengths", 1)
    if not len(sizes):
        raise InvalidRequest("there are no prompts")
    return _split(ints(request.prompt_tokens, "prompt_tokens"), sizes, "prompt_tokens")


def sample_params(request: pb.SampleRequest) -> SampleParams:
    if request.max_new_tokens < 1:
        raise InvalidRequest("max_new_tokens must be >= 1")
    top_p = positive(request.top_p, "top_p")
    if top_p > 1:
        raise InvalidRequest(f"top_p must be <= 1, got {top_p}")
    if any(not s for s in request.stop_strings):
        raise InvalidRequest("stop_strings contains an empty string: every response would end at once")
    return SampleParams(
        prompts=_prompts(request),
        num_samples=positive(request.num_samples, "num_samples"),
        max_new_tokens=request.max_new_tokens,
        temperature=not_negative(request.temperature, "temperature"),
        top_p=top_p,
        seed=request.seed,
        stop_tokens=tuple(request.stop_tokens),
        stop_strings=tuple(request.stop_strings),
        constraint=constraint(request),
        max_batch_tokens=_bound(request.max_batch_tokens, "max_batch_tokens"),
    )


def sampled_item(item: SampledItem) -> pb.SampleResponse.Item:
    return pb.SampleResponse.Item(
        prompt=item.prompt,
        sample=item.sample,
        tokens=to_bytes(item.tokens, "<i4"),
        logprobs=to_bytes(item.logprobs, "<f4"),
        finish_reason=pb.FINISH_REASON_STOP if item.stopped else pb.FINISH_REASON_LENGTH,
    )


def drawn_token(drawn: DrawnToken) -> pb.SampleResponse.Token:
    return pb.SampleResponse.Token(prompt=drawn.prompt, sample=drawn.sample, index=drawn.index, token=drawn.token)


def beam_params(request: pb.BeamSearchRequest) -> BeamParams:
    prompts = _prompts(request)
    excluded = ints(request.excluded, "excluded")
    sizes = lengths(request.excluded_lengths, "excluded_lengths", 0)
    if not len(sizes) and not len(excluded):
        sizes = np.zeros(len(prompts), dtype=np.int64)
    if len(sizes) != len(prompts):
        raise InvalidRequest(f"excluded_lengths has {len(sizes)} elements, expected {len(prompts)}")
    return BeamParams(
        prompts=prompts,
        trie=_trie(request.trie),
        beam_width=request.beam_width,
        excluded=[rows.astype(np.int64) for rows in _split(excluded, sizes, "excluded")],
    )


def _trie(message: pb.TokenTrie) -> Trie:
    names = ("edge_starts", "edge_tokens", "row_starts", "row_ends", "rows")
    return checked_trie(*(ints(getattr(message, name), f"trie.{name}").astype(np.int64) for name in names))


def beam_response(result: BeamResult) -> pb.BeamSearchResponse:
    return pb.BeamSearchResponse(rows=int_matrix_out(result.rows), logprobs=matrix_out(result.logprobs))


# ---------------------------------------------------------------- models and items


def load_spec(request: pb.LoadModelRequest) -> LoadSpec:
    source = request.WhichOneof("source")
    if source is None:
        raise InvalidRequest("source is missing: set scratch or pretrained")
    if source == "pretrained" and not request.pretrained.path:
        raise InvalidRequest("pretrained.path is empty")
    return LoadSpec(
        architecture_json=request.scratch.architecture_json,
        tokenizer_json=request.scratch.tokenizer_json,
        path=request.pretrained.path,
        gguf_file=request.pretrained.gguf_file,
        added_tokens=tuple(request.added_tokens),
        dtype=dtype_name(request.dtype),
        gradient_checkpointing=request.gradient_checkpointing,
        seed=request.seed,
        trainable=request.trainable,
        pad_vocab_multiple=request.pad_vocab_multiple,
        added_token_vectors=_added_token_vectors(request),
        lora=_lora(request),
        prefix_cache_bytes=not_negative(request.prefix_cache_bytes, "prefix_cache_bytes"),
    )


def dtype_name(dtype: pb.DType) -> str:
    """ "float32" or "bfloat16"."""
    names = {pb.DTYPE_FLOAT32: "float32", pb.DTYPE_BFLOAT16: "bfloat16"}
    if dtype not in names:
        raise InvalidRequest(f"dtype {dtype} is unknown")
    return names[dtype]


def _lora(request: pb.LoadModelRequest) -> LoraSpec | None:
    if not request.HasField("lora"):
        return None
    if request.WhichOneof("source") != "pretrained":
        raise InvalidRequest("lora needs a pretrained model: there is nothing to freeze in one from scratch")
    message = request.lora
    return LoraSpec(message.rank, message.alpha, message.dropout, tuple(message.target_modules))


def _added_token_vectors(request: pb.LoadModelRequest) -> Float32s | None:
    if not request.HasField("added_token_vectors") or not request.added_token_vectors.rows:
        return None
    vectors = matrix_in(request.added_token_vectors, "added_token_vectors", "<f4")
    if len(vectors) != len(request.added_tokens):
        raise InvalidRequest(
            f"added_token_vectors has {len(vectors)} rows, expected one per token: {len(request.added_tokens)}"
        )
    return vectors


def quantizer_config(message: pb.QuantizerConfig) -> dict[str, Any]:
    """Keyword arguments of `quantizer.QuantizerConfig`, which has the message's field names."""
    if message.method not in METHODS:
        raise InvalidRequest(f"quantizer method {message.method} is unknown")
    fields: dict[str, Any] = {f.name: getattr(message, f.name) for f in pb.QuantizerConfig.DESCRIPTOR.fields}
    fields["method"] = METHODS[message.method]
    fields["hidden_dims"] = tuple(message.hidden_dims)
    return fields


def config_fields(message: pb.TreesConfig | pb.CrossEncoderConfig) -> dict[str, Any]:
    """Keyword arguments of the dataclass of the same name, which has the message's field names."""
    return {f.name: getattr(message, f.name) for f in message.DESCRIPTOR.fields}
