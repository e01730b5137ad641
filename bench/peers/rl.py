"""What bench/rl.ts is held against: the usual way to do RL on a language model, with transformers and TRL.

    python bench/peers/rl.py '{"what": "update" | "sample" | "step", "architecture": {...}, ...}'

Reads one JSON object, prints one: {"seconds": [of each repetition], "tokens": responses' of one, "peak_mb": MB,
"ceiling": FLOPs a second of one large matrix product}. On the CPU seconds are CPU seconds and peak_mb the process's, on
a GPU the clock's and the device's. bfloat16 is autocast over float32 weights, as in the worker.
`update`  a padded batch of [prompt + response] rows: log-probs of the response tokens, DAPO's clipped loss, AdamW.
`sample`  model.generate(num_return_sequences=G), its own KV cache, no early end.
`step`    trl.GRPOTrainer(loss_type="dapo") with its own generation: sample, reward, update. Needs trl and datasets.
Every number of tokens is exact: prompts have equal length, end of sequence is never produced.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM


def build(job: dict[str, Any]) -> Any:
    """A fresh float32 model on eager-free SDPA attention."""
    architecture = job["architecture"]
    settings = dict(architecture)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    return model.to(job["device"])


def now(job: dict[str, Any]) -> float:
    """CPU seconds, or the clock's once the GPU has finished."""
    if job["device"] == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def precision(job: dict[str, Any]) -> Any:
    """bfloat16 autocast where it is asked for."""
    return torch.autocast(job["device"], dtype=torch.bfloat16, enabled=job["dtype"] == "bfloat16")


def ceiling(job: dict[str, Any]) -> float:
    """FLOPs a second of the best of some large matrix products."""
    n = 1024 if job["device"] == "cpu" else 8192
    a = torch.randn(n, n, device=job["device"], dtype=getattr(torch, job["dtype"]))
    best = float("inf")
    for _ in range(8):
        start = now(job)
        a @ a
        best = min(best, now(job) - start)
    return 2 * n**3 / best


def batches(job: dict[str, Any], repetition: int) -> tuple[Tensor, Tensor]:
    """Prompts [P, Tp] and responses [P * G, Tr] of one repetition."""
    generator = torch.Generator().manual_seed(repetition)
    vocab = job["architecture"]["vocab_size"]
    prompts = torch.randint(3, vocab, (job["prompts"], job["prompt_tokens"]), generator=generator)
    responses = torch.randint(3, vocab, (job["prompts"] * job["group"], job["response_tokens"]), generator=generator)
    return prompts.to(job["device"]), responses.to(job["device"])


def update(job: dict[str, Any]) -> list[float]:
    """Rows of prompt + response, micro-batched by rows; log-probs from logits of the response positions only."""
    model = build(job).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    seconds = []
    for repetition in range(job["repetitions"] + 1):
        prompts, responses = batches(job, repetition)
        rows = torch.cat([prompts.repeat_interleave(job["group"], dim=0), responses], dim=1)
        advantages = torch.randn(len(rows), 1, generator=torch.Generator().manual_seed(repetition)).to(job["device"])
        start = now(job)
        count = job["response_tokens"]
        for part, advantage in zip(rows.split(job["rows_at_once"]), advantages.split(job["rows_at_once"]), strict=True):
            with precision(job):
                out = model(input_ids=part, attention_mask=torch.ones_like(part), logits_to_keep=count + 1)
            logits = out.logits[:, :-1]
            logps = torch.log_softmax(logits.float(), dim=-1).gather(2, part[:, -count:, None])[..., 0]
            ratio = torch.exp(logps - logps.detach())
            loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage).sum() / responses.numel()
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(now(job) - start)
    return seconds[1:]


def sample(job: dict[str, Any]) -> list[float]:
    """generate() of G sequences a prompt, all prompts in one call."""
    model = build(job).eval()
    seconds = []
    for repetition in range(job["repetitions"] + 1):
        prompts, _ = batches(job, repetition)
        torch.manual_seed(repetition)
        start = now(job)
        with torch.no_grad(), precision(job):
            out = model.generate(
                prompts, attention_mask=torch.ones_like(prompts), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                num_return_sequences=job["group"], max_new_tokens=job["response_tokens"],
                min_new_tokens=job["response_tokens"], eos_token_id=2, pad_token_id=0,
            )  # fmt: skip
        seconds.append(now(job) - start)
        assert out.shape == (job["prompts"] * job["group"], job["prompt_tokens"] + job["response_tokens"])
    return seconds[1:]


def step(job: dict[str, Any]) -> list[float]:
    """TRL's whole step. Prompts are strings of single-token words, so that lengths are exact."""
    from datasets import Dataset  # type: ignore[import-not-found, unused-ignore]
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer  # type: ignore[import-not-found, unused-ignore]

    vocab = job["architecture"]["vocab_size"]
    words = {"<pad>": 0, "<unk>": 1, "<eos>": 2} | {f"t{i}": i for i in range(3, vocab)}
    word_level = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_level, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", padding_side="left"
    )
    steps = job["repetitions"] + 1
    texts = [" ".join(f"t{i}" for i in row.tolist()) for k in range(steps) for row in batches(job, k)[0]]
    length = job["response_tokens"]

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        assert all(len(ids) == length for ids in completion_ids)
        return [float(sum(ids) % 17) / 17 for ids in completion_ids]

    starts: list[float] = []

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            starts.append(now(job))

        def on_train_end(self, *_: Any, **__: Any) -> None:
            starts.append(now(job))

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, loss_type="dapo", beta=0.0, num_generations=job["group"], epsilon=0.2, epsilon_high=0.28,
            per_device_train_batch_size=job["rows_at_once"],
            gradient_accumulation_steps=job["prompts"] * job["group"] // job["rows_at_once"],
            max_completion_length=length, temperature=1.0, top_k=0, top_p=1.0, max_steps=steps, learning_rate=1e-5,
            generation_kwargs={"min_new_tokens": length}, use_cpu=job["device"] == "cpu",
            bf16=job["dtype"] == "bfloat16", gradient_checkpointing=False,
            report_to=[], save_strategy="no", logging_steps=1000, disable_tqdm=True, shuffle_dataset=False,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=build(job), reward_funcs=reward, args=config, processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": texts}), callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    return [b - a for a, b in pairwise(starts)][1:]


def main() -> None:
    job = json.loads(sys.argv[1])
    torch.set_num_threads(int(job.get("threads", 1)))
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.stdout, out = sys.stderr, sys.stdout  # libraries print what they like
    seconds = {"update": update, "sample": sample, "step": step}[job["what"]](job)
    on_cpu = job["device"] == "cpu"
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if on_cpu
        else torch.cuda.max_memory_allocated() / 2**20
    )
    tokens = job["prompts"] * job["group"] * job["response_tokens"]
    print(json.dumps({"seconds": seconds, "tokens": tokens, "peak_mb": peak, "ceiling": ceiling(job)}), file=out)


if __name__ == "__main__":
    main()
