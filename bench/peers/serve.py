"""What bench/serve-peers.ts is held against: the usual ways to re-rank a slate with a model of the same width and
depth.

    python bench/peers/serve.py < JOB.json

Reads {"architecture": {...}, "tokenizer": tokenizer.json, "slates": [{"history": [titles], "candidates": [titles]}],
"answer_tokens": per candidate, "batch": slates, "seconds": each, "threads": CPU threads}; prints
{"cross_encoder" | "generate": {"one" | "batch": {"slates": counted, "seconds": on the clock}}}.
`cross_encoder`  sentence-transformers' CrossEncoder over a BERT: one pair (history, candidate) a candidate.
`generate`       transformers' generate() with its KV cache:
                 history and candidates in, the order out, as many tokens as it takes.
Weights are random, which costs the same; neither ranks anything.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from sentence_transformers import CrossEncoder
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
)

Slate = dict[str, list[str]]


def make_tokenizer(job: dict[str, Any]) -> PreTrainedTokenizerFast:
    """The run's own, with token 0 as the padding."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=job["tokenizer"], padding_side="left")
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.model_max_length = job["architecture"]["max_position_embeddings"]
    return tokenizer


def cross_encoder(job: dict[str, Any], folder: str) -> Callable[[list[Slate]], None]:
    """Saved and loaded as a user would: CrossEncoder takes a folder."""
    tokenizer, a = make_tokenizer(job), job["architecture"]
    tokenizer.padding_side = "right"
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=a["hidden_size"],
        intermediate_size=a["intermediate_size"],
        num_hidden_layers=a["num_hidden_layers"],
        num_attention_heads=a["num_attention_heads"],
        max_position_embeddings=a["max_position_embeddings"],
        num_labels=1,
        pad_token_id=0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = CrossEncoder(folder, device="cpu")

    def rank(slates: list[Slate]) -> None:
        pairs = [("\n".join(s["history"]), c) for s in slates for c in s["candidates"]]
        model.predict(pairs, batch_size=256, show_progress_bar=False)

    return rank


def generate(job: dict[str, Any]) -> Callable[[list[Slate]], None]:
    """Greedy, no early end: every order is written whole."""
    tokenizer, settings = make_tokenizer(job), dict(job["architecture"])
    settings.pop("embedding_dropout", None)
    config = AutoConfig.for_model(settings.pop("model_type"), vocab_size=len(tokenizer), **settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()

    def rank(slates: list[Slate]) -> None:
        texts = ["\n".join([*s["history"], "", *s["candidates"], ""]) for s in slates]
        tokens = max(len(s["candidates"]) for s in slates) * job["answer_tokens"]
        inputs = tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=config.max_position_embeddings - tokens,
        )
        with torch.inference_mode():
            model.generate(
                inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )

    return rank


def measure(rank: Callable[[list[Slate]], None], slates: list[Slate], size: int, seconds: float) -> dict[str, float]:
    """Batches of so many slates, in turn, for so long; the first one warms up."""
    batches = [slates[i : i + size] for i in range(0, len(slates) - size + 1, size)]
    rank(batches[0])
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        rank(batches[done % len(batches)])
        done += 1
    return {"slates": done * size, "seconds": time.perf_counter() - start}


def main() -> None:
    """Measures both, one at a time and in batches."""
    job = json.load(sys.stdin)
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        peers = {"cross_encoder": cross_encoder(job, folder), "generate": generate(job)}
        sizes = {"one": 1, "batch": job["batch"]}
        result = {
            name: {which: measure(rank, job["slates"], size, job["seconds"]) for which, size in sizes.items()}
            for name, rank in peers.items()
        }
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
