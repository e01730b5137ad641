"""LoRA: what moves and what does not, resume, and the exported checkpoint through plain transformers."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from asked import EVERYTHING, adamw_params, forward_spec, load_spec, train_spec
from conftest import VOCAB, random_batch, spec, unpack
from gr2_worker.engine import Engine
from gr2_worker.errors import FailedPrecondition, InvalidRequest
from gr2_worker.model import vocabulary
from gr2_worker.types import GroupBatch, LoraSpec
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

LORA = LoraSpec(rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "v_proj", "down_proj"))
CODES = tuple(f"<s_{i}>" for i in range(5))
STEP = adamw_params(learning_rate=2e-2, weight_decay=0.1, max_grad_norm=1.0)
FILES = {"gr2_export.json": b"{}", "README.md": b"# A model\n"}


@pytest.fixture
def base(make_engine, tmp_path):
    """Folder of a base model; `make(tied=..., model_type=...)`."""

    def make(tied=True, model_type="qwen3", **extra):
        folder = tmp_path / f"base-{tied}-{model_type}"
        make_engine(tie_word_embeddings=tied, model_type=model_type, **extra).save_state("", str(folder), False)
        return folder

    return make


def load(folder, **extra):
    engine = Engine(torch.device("cpu"))
    options = {"added_tokens": CODES, "seed": 3, "trainable": True, "lora": LORA, "pad_vocab_multiple": 16, **extra}
    engine.load_model("", load_spec(path=str(folder), **options))
    return engine


def batch_with_codes(seed=0):
    """Every token of the vocabulary and every code occurs, in prompt and response."""
    batch = random_batch(seed, groups=6)
    tokens = batch.tokens.copy()
    tokens[np.random.default_rng(seed).random(len(tokens)) < 0.5] = 0
    at = np.flatnonzero(tokens == 0)
    tokens[at] = VOCAB + np.arange(len(at)) % len(CODES)
    return GroupBatch(tokens, batch.prompt_lengths, batch.group_sizes, batch.response_lengths)


def train(engine, seeds):
    for seed in seeds:
        batch = batch_with_codes(seed)
        weights = np.full(batch.num_targets, 1 / batch.num_targets, dtype=np.float32)
        engine.forward_backward("", "", train_spec(batch, weights, EVERYTHING, seed=seed))
        engine.optim_step("", "", STEP)


def parameters(engine):
    return {n: p.detach().clone() for n, p in engine.model("").lm.model.named_parameters()}


@pytest.mark.parametrize("tied", [True, False])
def test_what_is_trained_moves_and_the_base_does_not(base, tied):
    engine = load(base(tied))
    lm = engine.model("").lm
    before = parameters(engine)
    train(engine, range(2))  # lora_A gets a gradient once lora_B is not 0 any more
    moved = {n for n, p in parameters(engine).items() if not torch.equal(p, before[n])}
    assert moved == lm.adapter.names
    # 2 layers: q 32x32, v 32x16, down 64x32 (in x out), rank 4; a row of 32 for each of 5 codes, twice if untied
    lora = 2 * 4 * ((32 + 32) + (32 + 16) + (64 + 32))
    assert lm.num_trained == lora + 5 * 32 * (1 if tied else 2)
    rows = [p for n, p in lm.model.named_parameters() if n.endswith(".rows")]
    assert len(rows) == (1 if tied else 2) and all(r.shape == (5, 32) for r in rows)


@pytest.mark.parametrize("tied", [True, False])
def test_an_untrained_adapter_changes_nothing(base, tied):
    """Same rows, same log-probs, also where only some tokens' logits are computed."""
    folder, batch = base(tied), batch_with_codes()
    plain = load(folder, lora=None).forward("", forward_spec(batch)).logprobs
    engine = load(folder)
    got = engine.forward("", forward_spec(batch)).logprobs
    np.testing.assert_allclose(got, plain, atol=1e-5)
    lm = engine.model("").lm
    train(engine, [0])
    with torch.no_grad():
        hidden = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
        tokens = torch.tensor([[0, VOCAB + 1], [7, VOCAB + 4], [60, 3]])
        picked = lm.compute_logits(hidden, tokens)
        assert tokens.shape[1] * 4 < lm.vocab_size  # the path that computes these alone
        torch.testing.assert_close(picked, lm.logits(hidden).gather(1, tokens), atol=1e-5, rtol=1e-5)


def test_the_gradient_of_rows_equals_that_of_the_whole_table(base):
    for tied in (True, False):
        folder, batch = base(tied), batch_with_codes()
        weights = np.ones(batch.num_targets, dtype=np.float32)
        gradients = []
        for lora in (None, LORA):
            engine = load(folder, lora=lora)
            engine.forward_backward("", "", train_spec(batch, weights, EVERYTHING))
            model = engine.model("").lm.model
            ends = (model.get_input_embeddings(), model.get_output_embeddings())
            ids = slice(VOCAB, VOCAB + len(CODES))
            gradients.append([e.weight.grad[ids] if lora is None else e.rows.grad for e in ends])
        for whole, rows in zip(*gradients, strict=True):
            torch.testing.assert_close(rows, whole, atol=1e-4, rtol=1e-3)


def test_resume_equals_uninterrupted_training(base, tmp_path):
    folder = base()
    lora = replace(LORA, dropout=0.2)
    whole = load(folder, lora=lora)
    train(whole, range(2))
    info = whole.save_state("", str(tmp_path / "state"), True)
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == [
        "adapter.safetensors", "gr2_state.json", "optimizer.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    assert info.weights_bytes < 20_000  # not the base
    train(whole, range(2, 4))
    # other placement of codes at load, as in a later stage: the state decides
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    resumed = load(folder, lora=lora, added_token_vectors=vectors)
    assert resumed.load_state("", str(tmp_path / "state"), True).step == 2
    train(resumed, range(2, 4))
    for name, weight in parameters(whole).items():
        assert torch.equal(weight, parameters(resumed)[name]) or ".base." in name, name
    frozen = load(folder, lora=lora, trainable=False)
    frozen.load_state("", str(tmp_path / "state"), False)
    assert frozen.model("").lm.num_trained == 0


def test_codes_are_placed_near_similar_ones_and_no_farther_than_a_trained_model_tolerates(base):
    vectors = np.asarray([[1, 0, 0], [1, 0.1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=np.float32)
    for tied in (True, False):
        plain, placed = (load(base(tied), lora=None, added_token_vectors=v) for v in (None, vectors))
        for plain_V, placed_V in zip(
            vocabulary.tables(plain.model("").lm.model), vocabulary.tables(placed.model("").lm.model), strict=True
        ):
            moved = (placed_V - plain_V).detach()[VOCAB : VOCAB + len(CODES)]
            assert torch.equal(placed_V[:VOCAB], plain_V[:VOCAB]) and not moved[3].any()  # zeros: nowhere
            rms = moved[[0, 1, 2, 4]].square().mean().sqrt()
            assert float(rms) == pytest.approx(0.5 * float(plain_V.detach().std()), rel=0.01)
            near, far = (torch.cosine_similarity(moved[0], moved[k], dim=0) for k in (1, 2))
            assert near > 0.9 > far


def test_states_belong_to_their_base(base, make_engine, tmp_path):
    engine = load(base())
    engine.save_state("", str(tmp_path / "state"), False)
    other = tmp_path / "other"
    make_engine(seed=9).save_state("", str(other), False)
    with pytest.raises(FailedPrecondition, match="a different base model"):
        load(other).load_state("", str(tmp_path / "state"), False)
    with pytest.raises(FailedPrecondition, match="loaded without LoRA"):
        load(base(), lora=None).load_state("", str(tmp_path / "state"), False)
    with pytest.raises(FailedPrecondition, match="whole model, the model was loaded with LoRA"):
        engine.load_state("", str(other), False)
    with pytest.raises(
        FailedPrecondition, match="differs from the loaded model in LoRA rank, target modules or vocabulary"
    ):
        load(base(), lora=replace(LORA, rank=2)).load_state("", str(tmp_path / "state"), False)
    load(base(), dtype="bfloat16").load_state("", str(tmp_path / "state"), False)  # the same base, stored otherwise


def test_target_names_that_match_nothing_are_named(base):
    with pytest.raises(
        InvalidRequest, match=r"match no layer: query, w1; this model's linear layers are down_proj, gate"
    ):
        load(base(), lora=replace(LORA, targets=("q_proj", "w1", "query")))
    with pytest.raises(InvalidRequest, match="none given"):
        load(base(), lora=replace(LORA, targets=()))
    with pytest.raises(InvalidRequest, match="rank >= 1"):
        load(base(), lora=replace(LORA, rank=0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_frozen_copy_with_a_prefix_cache_scores_as_without(base, tmp_path, dtype):
    folder = base()
    trained = load(folder)
    train(trained, range(3))
    trained.save_state("", str(tmp_path / "trained"), False)
    batch = batch_with_codes(11)
    long = GroupBatch(
        np.tile(batch.tokens[:40], 2), np.asarray([37, 37]), np.asarray([1, 1]), np.asarray([3, 3])
    )  # one prompt, twice
    scores = []
    for size in (0, 1 << 20):
        frozen = load(folder, trainable=False, dtype=dtype, prefix_cache_bytes=size)
        frozen.load_state("", str(tmp_path / "trained"), False)
        scores += [frozen.forward("", forward_spec(long)).logprobs for _ in range(2)]
    assert frozen.model("").reused_tokens == 2 * 32
    for got in scores[1:]:
        np.testing.assert_allclose(got, scores[0], atol=1e-5 if dtype == "float32" else 5e-2)


def test_bfloat16_stores_the_base_and_float32_masters_of_what_is_trained(base):
    engine = load(base(), dtype="bfloat16", gradient_checkpointing=True)
    lm = engine.model("").lm
    for name, parameter in lm.model.named_parameters():
        trained = name in lm.adapter.names
        assert (parameter.dtype, parameter.requires_grad) == (torch.float32 if trained else torch.bfloat16, trained)
    before = parameters(engine)
    train(engine, range(2))
    assert {n for n, p in parameters(engine).items() if not torch.equal(p, before[n])} == lm.adapter.names


# ---------------------------------------------------------------- export


@pytest.mark.parametrize("family", ["qwen3", "llama", "gemma2", "gemma3_text"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("lora", [LORA, None])
def test_plain_transformers_computes_the_same_from_an_export(base, tmp_path, family, tied, lora):
    windows = {"sliding_window": 6} if family.startswith("gemma") else {}
    engine = load(base(tied, family, **windows), lora=lora)
    train(engine, range(2))
    out = tmp_path / "export"
    engine.export_model("", str(out), "float32", FILES)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    assert model.config.architectures == [type(model).__name__] and model.config.tie_word_embeddings == tied
    assert json.loads((out / "config.json").read_text())["vocab_size"] == model.get_input_embeddings().num_embeddings
    batch = batch_with_codes(7)
    got = engine.forward("", forward_spec(batch)).logprobs
    want = []
    with torch.no_grad():
        for prompt, response in unpack(batch):
            ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
            logits = model(input_ids=ids).logits[0].log_softmax(-1)
            want.append(logits[torch.arange(len(prompt) - 1, ids.shape[1] - 1), ids[0, len(prompt) :]])
    np.testing.assert_allclose(got, torch.cat(want).numpy(), atol=1e-4)
    # and through the worker again: the codes are known by now and keep their ids
    again = load(out, lora=None)
    assert again.model("").lm.added_token_ids == engine.model("").lm.added_token_ids
    np.testing.assert_allclose(again.forward("", forward_spec(batch)).logprobs, got, atol=1e-4)


def test_an_export_holds_tokenizer_template_and_files_and_is_replaced_as_a_whole(base, tmp_path):
    folder = base()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "chat_template": template, "eos_token": "w9"})
    )
    engine = load(folder)
    out = tmp_path / "export"
    for _ in range(2):
        size = engine.export_model("", str(out), "bfloat16", FILES)
    tokenizer = AutoTokenizer.from_pretrained(out)
    text = "w5<s_3><s_0>w7"
    own = Tokenizer.from_str(engine.model("").lm.tokenizer_json.decode())
    assert tokenizer(text)["input_ids"] == own.encode(text).ids and VOCAB + 3 in own.encode(text).ids
    assert tokenizer.apply_chat_template([{"role": "user", "content": "w5"}], tokenize=False) == "w5"
    assert tokenizer.eos_token_id == 9
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16 and model.generation_config.eos_token_id == 9
    assert size == sum(p.numel() * 2 for p in model.parameters()) and (out / "README.md").read_text() == "# A model\n"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InvalidRequest, match="is not an exported model"):
        engine.export_model("", str(tmp_path / "mine"), "float32", FILES)
    with pytest.raises(InvalidRequest, match="plain name"):
        engine.export_model("", str(out), "float32", {**FILES, "../x": b""})


def test_lora_needs_a_pretrained_model():
    from gr2.v1 import worker_pb2 as pb
    from gr2_worker.rpc import wire

    request = pb.LoadModelRequest(
        scratch=pb.ScratchModel(architecture_json=spec().architecture_json),
        lora=pb.Lora(rank=2),
        dtype=pb.DTYPE_FLOAT32,
    )
    with pytest.raises(InvalidRequest, match="pretrained"):
        wire.load_spec(request)
