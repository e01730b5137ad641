"""Every supported family equals transformers' own forward, packed, sampled and trained;
what is not supported is refused.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from asked import EVERYTHING, forward_spec, load_spec, sample_params, train_spec
from conftest import random_batch, spec, unpack
from gr2_worker.engine import Engine
from gr2_worker.errors import InvalidRequest, NotFound
from gr2_worker.types import BeamParams, GroupBatch
from transformers import AutoModelForCausalLM

GEMMA = {"query_pre_attn_scalar": 20, "sliding_window": 6}
FAMILIES = {
    "qwen3": {},
    "qwen2": {},
    "llama": {"tie_word_embeddings": False},
    "smollm3": {},
    "mistral": {"sliding_window": 6},
    "gemma": {},
    "gemma2": {**GEMMA, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    "gemma3_text": {**GEMMA, "layer_types": ["sliding_attention", "full_attention"]},
}


def reference(engine, tmp_path):
    """The same weights in transformers' own model with its own attention."""
    engine.save_state("", str(tmp_path / "state"), False)
    return AutoModelForCausalLM.from_pretrained(tmp_path / "state", attn_implementation="eager", dtype=torch.float32)


def compute_logprobs(model, batch):
    out = []
    for prompt, response in unpack(batch):
        ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
        logits = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        out.append(logits[torch.arange(len(prompt) - 1, ids.shape[1] - 1), ids[0, len(prompt) :]])
    return torch.cat(out)


@pytest.mark.parametrize("family", FAMILIES)
def test_forward_and_gradient_equal_transformers(make_engine, tmp_path, family):
    engine = make_engine(model_type=family, **FAMILIES[family])
    model = reference(engine, tmp_path)
    batch = random_batch(3, groups=6)  # prompts and responses longer than the windows, groups of one and of several
    for micro_batch_tokens in (64, 4096):
        got = engine.forward("", forward_spec(batch, micro_batch_tokens=micro_batch_tokens)).logprobs
        with torch.no_grad():
            np.testing.assert_allclose(got, compute_logprobs(model, batch).numpy(), atol=2e-5)
    ones = np.ones(batch.num_targets, dtype=np.float32)
    engine.forward_backward("", "", train_spec(batch, ones, EVERYTHING))
    (-compute_logprobs(model, batch).sum()).backward()
    wanted = {n: p.grad for n, p in model.named_parameters()}
    for name, parameter in engine.model("").lm.model.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("common", [0, 70])  # what all prompts begin with is computed once from 64 tokens on
@pytest.mark.parametrize("family", FAMILIES)
def test_sampler_equals_transformers(make_engine, tmp_path, family, common):
    engine = make_engine(model_type=family, trainable=False, **FAMILIES[family])
    rng = np.random.default_rng(0)
    begin = rng.integers(1, 60, size=common)
    prompts = [np.concatenate([begin, rng.integers(1, 60, size=n)]).astype(np.int32) for n in (3, 9, 14)]
    items = [i for part in engine.sample("", sample_params(prompts, 3, 12, seed=1)) for i in part]
    drawn = {(i.prompt, i.sample): i for i in items}
    rows = [drawn[p, s] for p in range(3) for s in range(3)]
    tokens = [part for p in range(3) for part in (prompts[p], *(drawn[p, s].tokens for s in range(3)))]
    batch = GroupBatch(
        np.concatenate(tokens),
        np.asarray([len(p) for p in prompts]),
        np.full(3, 3),
        np.asarray([len(r.tokens) for r in rows]),
    )
    with torch.no_grad():
        want = compute_logprobs(reference(engine, tmp_path), batch).numpy()
    np.testing.assert_allclose(np.concatenate([r.logprobs for r in rows]), want, atol=3e-5)


def test_beams_within_a_window_score_what_transformers_scores(make_engine, tmp_path):
    from conftest import make_trie

    engine = make_engine(model_type="gemma3_text", trainable=False, **FAMILIES["gemma3_text"])
    sequences = [(a, b, c) for a in (1, 2) for b in (3, 4) for c in (5, 6)]
    prompt = np.arange(10, 21, dtype=np.int32)
    found = engine.beam_search("", BeamParams([prompt], make_trie(sequences), 8, [np.zeros(0, dtype=np.int64)]))
    model = reference(engine, tmp_path)
    for row, logprob in zip(found.rows[0], found.logprobs[0], strict=True):
        batch = GroupBatch(
            np.concatenate([prompt, sequences[row]]).astype(np.int32),
            np.asarray([11]),
            np.ones(1, int),
            np.asarray([3]),
        )
        with torch.no_grad():
            assert logprob == pytest.approx(float(compute_logprobs(model, batch).sum()), abs=5e-5)


def test_other_architectures_are_refused_before_their_weights_are_read(tmp_path):
    for model_type, match in (("mamba", "'mamba' is not supported.*qwen3"), ("gemma3", "text-only")):
        folder = tmp_path / model_type
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        (folder / "model.safetensors").write_bytes(b"never read")
        with pytest.raises(InvalidRequest, match=match):
            Engine(torch.device("cpu")).load_model("", load_spec(path=str(folder)))
    (folder / "config.json").unlink()
    with pytest.raises(NotFound, match=r"config\.json"):
        Engine(torch.device("cpu")).load_model("", load_spec(path=str(folder)))
    with pytest.raises(InvalidRequest, match="'mamba' is not supported"):
        Engine(torch.device("cpu")).load_model("", spec(model_type="mamba"))
    with pytest.raises(NotFound, match=r"no file weights\.gguf"):
        Engine(torch.device("cpu")).load_model("", load_spec(path=str(folder), gguf_file="weights.gguf"))
