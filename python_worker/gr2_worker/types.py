"""Plain data exchanged between the worker's packages: NumPy arrays and numbers, no protobuf, no torch modules,
no defaults.

Shape legend: G groups, R responses, N targets (response tokens, flat in request order), P prompts,
J sequences of a constraint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
Float32s = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]

# Raises `errors.Cancelled` once the caller has gone away; called between micro-batches and decode steps.
CancelCheck = Callable[[], None]


def never_cancelled() -> None:
    """The CancelCheck of callers that cannot go away."""


def segment_starts(lengths: Int64s) -> Int64s:
    """Exclusive prefix sum: where each of the concatenated pieces starts; shape [len(lengths)]."""
    starts = np.zeros(len(lengths), dtype=np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    return starts


@dataclass(frozen=True)
class GroupBatch:
    """Groups of responses that share a prompt. `tokens` holds prompt 0, its responses, prompt 1, its responses, ..."""

    tokens: Int32s
    prompt_lengths: Int64s  # [G]
    group_sizes: Int64s  # [G]
    response_lengths: Int64s  # [R]

    @property
    def num_groups(self) -> int:
        return len(self.prompt_lengths)

    @property
    def num_responses(self) -> int:
        return len(self.response_lengths)

    @cached_property
    def num_targets(self) -> int:
        return int(self.response_lengths.sum())

    @cached_property
    def group_of_response(self) -> Int64s:
        """[R] index of each response's group."""
        return np.repeat(np.arange(self.num_groups, dtype=np.int64), self.group_sizes)

    @cached_property
    def target_starts(self) -> Int64s:
        """[R] first flat target of each response."""
        return segment_starts(self.response_lengths)

    @cached_property
    def prompt_starts(self) -> Int64s:
        """[G] where each prompt starts in `tokens`."""
        prompts_before = np.cumsum(self.prompt_lengths) - self.prompt_lengths
        first_response = segment_starts(self.group_sizes)
        return prompts_before + self.target_starts[first_response] if self.num_groups else prompts_before

    @cached_property
    def response_starts(self) -> Int64s:
        """[R] where each response starts in `tokens`."""
        return self.target_starts + np.cumsum(self.prompt_lengths)[self.group_of_response]

    @cached_property
    def targets(self) -> Int32s:
        """[N] the response tokens, flat, prompts left out."""
        is_target = np.ones(len(self.tokens), dtype=np.bool_)
        for start, length in zip(self.prompt_starts, self.prompt_lengths, strict=True):
            is_target[start : start + length] = False
        return self.tokens[is_target]


@dataclass(frozen=True)
class PermutationConstraint:
    """See worker.proto: responses are restricted to permutations of given sequences, with a prior on
    which comes first.
    """

    sequence_counts: Int64s  # [entries]; one entry per group or prompt; 0 = unconstrained
    sequence_lengths: Int64s  # [sum of sequence_counts]
    sequence_tokens: Int32s  # flat
    prior: Float32s  # [sum of sequence_counts]
    scale: float
    trigger: tuple[int, ...]
    separator: tuple[int, ...]
    terminator: tuple[int, ...]
    max_sequences: int
    whole_sequences: bool
    max_free_tokens: int  # 0 = no bound


@dataclass(frozen=True)
class CrossEntropy:
    """loss_t = -log p_t; with negatives, normalised over an estimate of the vocabulary (logprobs.sampled_logprobs)."""

    negatives: int  # 0 = the whole vocabulary


@dataclass(frozen=True)
class Policy:
    """Clipped surrogate with an optional k3 KL anchor (DAPO eq. 8, GRPO)."""

    advantages: Float32s  # [N]
    old_logprobs: Float32s  # [N]
    reference_logprobs: Float32s | None  # [N]; needed if kl_coef > 0
    clip_low: float
    clip_high: float
    kl_coef: float


@dataclass(frozen=True)
class TopTokens:
    """The likeliest alternatives at every target (targets.py), likeliest first;
    id -1 and log-prob -inf where fewer are open.
    """

    ids: Int32s  # [N, k]
    logprobs: Float32s  # [N, k]


@dataclass(frozen=True)
class Distill:
    """Forward KL to a teacher over its likeliest alternatives and the rest (losses.py)."""

    teacher: TopTokens


LossSpec = CrossEntropy | Policy | Distill


@dataclass(frozen=True)
class ForwardSpec:
    """What Forward computes."""

    batch: GroupBatch
    constraint: PermutationConstraint | None
    temperature: float  # > 0
    want_entropy: bool
    micro_batch_tokens: int
    top_k: int  # number of alternatives wanted for every target


@dataclass(frozen=True)
class ForwardResult:
    logprobs: Float32s  # [N]
    entropy: Float32s | None  # [N], if requested
    top: TopTokens | None  # if wanted


@dataclass(frozen=True)
class TrainSpec:
    """What ForwardBackward computes."""

    batch: GroupBatch
    weights: Float32s  # [N]
    loss: LossSpec
    constraint: PermutationConstraint | None
    temperature: float
    micro_batch_tokens: int
    seed: int
    want_logprobs: bool


@dataclass(frozen=True)
class TrainResult:
    loss: float
    metrics: dict[str, float]
    logprobs: Float32s | None  # [N]
    compute_seconds: float


@dataclass(frozen=True)
class AdamWParams:
    learning_rate: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    max_grad_norm: float  # 0 = no clipping


@dataclass(frozen=True)
class OptimResult:
    grad_norm: float
    step: int
    weight_version: int


@dataclass(frozen=True)
class SampleParams:
    """How Sample draws. temperature 0 = greedy; top_p 1 = off."""

    prompts: list[Int32s]
    num_samples: int
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    stop_tokens: tuple[int, ...]
    stop_strings: tuple[str, ...]  # none empty
    constraint: PermutationConstraint | None
    max_batch_tokens: int


@dataclass(frozen=True)
class DrawnToken:
    """One token of a response that is not finished yet."""

    prompt: int
    sample: int
    index: int
    token: int


TokenWatcher = Callable[[list[DrawnToken]], None]


@dataclass(frozen=True)
class SampledItem:
    prompt: int
    sample: int
    tokens: Int32s
    logprobs: Float32s
    stopped: bool  # False: max_new_tokens reached


@dataclass(frozen=True)
class Trie:
    """A checked trie: every leaf is one item, every inner node has an item below it, so no node is a dead end."""

    edge_starts_N1: Int64s
    edge_tokens_E: Int64s  # ascending within a node
    row_starts_N: Int64s  # items under node n are rows_I[row_starts_N[n] : row_ends_N[n]]
    row_ends_N: Int64s
    rows_I: Int64s  # catalogue rows, sorted by their sequences
    num_levels: int  # tokens of the longest sequence

    @property
    def is_leaf_N(self) -> Bools:
        return np.diff(self.edge_starts_N1) == 0


@dataclass(frozen=True)
class BeamParams:
    prompts: list[Int32s]
    trie: Trie
    beam_width: int
    excluded: list[Int64s]  # per prompt: catalogue rows that must not be returned


@dataclass(frozen=True)
class BeamResult:
    rows: Int32s  # [P, beam_width]; -1 where fewer are open
    logprobs: Float32s  # [P, beam_width]; -inf where there are fewer


@dataclass(frozen=True)
class LoraSpec:
    """LoRA on the linear layers with these names (last part, e.g. q_proj), plus a trained row for every added token."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]


@dataclass(frozen=True)
class LoadSpec:
    """How LoadModel makes a model: from an architecture and a tokenizer, or from a path."""

    architecture_json: str
    tokenizer_json: bytes
    path: str
    gguf_file: str
    added_tokens: tuple[str, ...]
    dtype: str  # "float32" | "bfloat16"
    gradient_checkpointing: bool
    seed: int
    trainable: bool
    pad_vocab_multiple: int
    added_token_vectors: Float32s | None  # [added tokens, any width]
    lora: LoraSpec | None  # None = all parameters are trained
    prefix_cache_bytes: int  # 0 = no prefix cache
