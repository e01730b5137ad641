"""The decoder used while sampling computes what transformers' modules compute, for every family
and precision it claims.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from asked import load_spec
from conftest import VOCAB, architecture, tokenizer_json
from gr2_worker.engine import Engine
from gr2_worker.generation.decoder import Decoder, for_generation
from gr2_worker.generation.prefill import prefill
from gr2_worker.generation.sampler import decode
from gr2_worker.types import never_cancelled

PROMPTS = [np.random.default_rng(p).integers(0, VOCAB, size=n).astype(np.int32) for p, n in enumerate((17, 5, 11))]
FED = np.random.default_rng(9).integers(0, VOCAB, size=(9, 4)).astype(np.int32)


def loaded(model_type="qwen3", dtype="float32", trainable=True, **extra):
    engine = Engine(torch.device("cpu"))
    spec = load_spec(
        architecture_json=architecture(model_type, **extra),
        tokenizer_json=tokenizer_json(),
        dtype=dtype,
        trainable=trainable,
        seed=1,
    )
    engine.load_model("", spec)
    lm = engine.model("").lm
    with torch.no_grad():  # norms and biases start as ones and zeros, which would hide that they are forgotten
        for name, parameter in lm.model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return lm


@torch.no_grad()
def generated(lm, of):
    """Logits after every prompt [3, V], then after three and after four more tokens of three rows each [9, V]."""
    with lm.autocast():
        cache, last = prefill(of, PROMPTS, never_cancelled)
        cache.start_decoding(3)
        hidden = [last, decode(of, cache, FED[:, :3]), decode(of, cache, FED[:, 3:])]
        return [of.logits(h) for h in hidden]


@pytest.mark.parametrize(
    ("model_type", "extra"),
    [
        ("qwen3", {}),
        ("qwen3", {"attention_bias": True, "tie_word_embeddings": False, "head_dim": 16}),
        ("qwen2", {}),
        ("llama", {"num_key_value_heads": 4}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}}),
    ],
)
def test_equals_the_models_own_modules(model_type, extra):
    lm = loaded(model_type, **extra)
    decoder = for_generation(lm)
    assert isinstance(decoder, Decoder)
    for ours, theirs in zip(generated(lm, decoder), generated(lm, lm), strict=True):
        assert theirs.std() > 0.5  # logits that differ from row to row: equality says something
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("trainable", [True, False])
def test_bfloat16_is_as_close_as_its_rounding(trainable):
    """Eight bits of mantissa: a few parts in a hundred of the logits' spread, whether autocast or cast as a whole."""
    lm = loaded(dtype="bfloat16", trainable=trainable)
    for ours, theirs in zip(generated(lm, Decoder(lm)), generated(lm, lm), strict=True):
        assert float((ours - theirs).abs().mean()) < 0.03 * float(theirs.std())


@pytest.mark.parametrize(
    ("model_type", "extra"),
    [
        ("gemma", {"hidden_act": "gelu_pytorch_tanh"}),
        ("mistral", {"sliding_window": 4}),
        ("llama", {"hidden_act": "gelu"}),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
    ],
)
def test_other_shapes_generate_through_their_own_modules(model_type, extra):
    assert json.loads(architecture(model_type))["model_type"] == model_type
    lm = loaded(model_type, **extra)
    assert for_generation(lm) is lm
    assert all(torch.isfinite(x).all() for x in generated(lm, lm))


def test_follows_the_weights_from_one_call_to_the_next():
    lm = loaded()
    before = generated(lm, for_generation(lm))
    with torch.no_grad():
        lm.model.get_decoder().layers[0].mlp.down_proj.weight.mul_(-1)
    after = generated(lm, for_generation(lm))
    assert float((before[0] - after[0]).abs().max()) > 0.1
