"""A cross-encoder: one text encoder that reads a query and a candidate together and gives the pair a score.

Fine-tuned listwise: within a group, cross-entropy of the softmax over its candidates' scores against the true one. The
head is new, and all weights are trained. Deterministic for given data, configuration, seed and number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from gr2_worker.errors import InvalidRequest, NotFound, first_line

# (groups done, total groups, loss of the last step or None)
OnProgress = Callable[[int, int, float | None], None]

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class CrossEncoderConfig:
    epochs: float
    learning_rate: float
    batch_groups: int
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Group:
    query: str
    texts: list[str]
    target: int


def fit_cross_encoder(
    model_path: str,
    queries: Sequence[str],
    texts: Sequence[str],
    group_sizes: Ints,
    rows: Ints,
    targets: Ints,
    config: CrossEncoderConfig,
    device: str,
    on_progress: OnProgress,
) -> npt.NDArray[np.float32]:
    """Trains on the groups with a target; returns the scores of the other groups' candidates, in order.

    Raises NotFound if there is no encoder at model_path, InvalidRequest if the lists do not fit together.
    """
    groups = _groups(queries, texts, group_sizes, rows, targets)
    learned = [g for g in groups if g.target >= 0]
    to_score = [g for g in groups if g.target < 0]
    steps = _batches(len(learned), config)
    total = sum(len(step) for step in steps) + len(to_score)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model, tokenizer = _load(model_path, device)

        def score(group: Group) -> torch.Tensor:
            pairs = tokenizer(
                [group.query] * len(group.texts),
                group.texts,
                truncation="only_first",
                max_length=config.max_tokens,
                padding=True,
                return_tensors="pt",
            )
            return model(**pairs.to(device)).logits.squeeze(-1)

        optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate)
        done = 0
        model.train()
        for index, step in enumerate(steps):
            for parameters in optimizer.param_groups:
                parameters["lr"] = config.learning_rate * (1 - index / len(steps))
            loss = 0.0
            for k in step:
                target = torch.tensor(learned[k].target, device=device)
                part = cross_entropy(score(learned[k]), target) / len(step)
                part.backward()
                loss += part.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            done += len(step)
            on_progress(done, total, loss)
        model.eval()
        out: list[npt.NDArray[np.float32]] = []
        with torch.inference_mode():
            for group in to_score:
                out.append(score(group).float().cpu().numpy())
                done += 1
                on_progress(done, total, None)
    return np.concatenate([np.zeros(0, np.float32), *out])


def _groups(queries: Sequence[str], texts: Sequence[str], sizes: Ints, rows: Ints, targets: Ints) -> list[Group]:
    if not len(queries) == len(sizes) == len(targets) or int(sizes.sum()) != len(rows):
        raise InvalidRequest("queries, group_sizes and targets need an entry per group, rows one per candidate")
    if (len(sizes) and sizes.min() < 1) or (len(rows) and not 0 <= rows.min() <= rows.max() < len(texts)):
        raise InvalidRequest("a group is empty, or a candidate has no text")
    if bool((targets >= sizes).any()):
        raise InvalidRequest("a target is outside its group")
    ends = np.cumsum(sizes)
    return [
        Group(query, [texts[row] for row in rows[end - size : end]], int(target))
        for query, size, end, target in zip(queries, sizes, ends, targets, strict=True)
    ]


def _batches(count: int, config: CrossEncoderConfig) -> list[list[int]]:
    """Groups of every optimizer step, shuffled anew in every epoch."""
    rng = np.random.default_rng(config.seed)
    wanted = round(config.epochs * count)
    order: list[int] = []
    while len(order) < wanted:
        order.extend(int(k) for k in rng.permutation(count))
    size = max(1, config.batch_groups)
    return [order[at : min(at + size, wanted)] for at in range(0, wanted, size)]


def _load(model_path: str, device: str) -> tuple[Any, Any]:
    folder = Path(model_path).expanduser()
    if model_path == "" or not folder.is_dir():
        raise NotFound(f"there is no text encoder at {model_path!r}: expected a folder")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        # Never a pickle.
        options = {"num_labels": 1, "local_files_only": True, "use_safetensors": True}
        model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    except (OSError, ValueError, KeyError) as error:
        raise NotFound(f"cannot load a text encoder from {model_path!r}: {first_line(error)}") from error
    return model.to(device=device, dtype=torch.float32), tokenizer
