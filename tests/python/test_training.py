"""The training loop's invariants: accumulation, resume, determinism, what moves and what does not, atomic state."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from asked import EVERYTHING, adamw_params, forward_spec, load_spec, permutation_constraint, train_spec
from conftest import VOCAB, as_batch, random_batch, spec, tokenizer_json, unpack
from gr2_worker.engine import Engine
from gr2_worker.errors import Cancelled, FailedPrecondition, InvalidRequest, NotFound, ResourceExhausted
from gr2_worker.scoring import logprobs
from gr2_worker.types import CrossEntropy, Policy

STEP = adamw_params(learning_rate=1e-2, weight_decay=0.1, max_grad_norm=1.0)


def random_spec(seed, **extra):
    batch = random_batch(seed)
    weights = np.random.default_rng(seed).random(batch.num_targets).astype(np.float32) / batch.num_targets
    return train_spec(batch, weights, EVERYTHING, seed=seed, **extra)


def copy_weights(engine):
    return {n: p.detach().clone() for n, p in engine.model("").lm.model.named_parameters()}


def copy_gradients(engine):
    return {n: p.grad.clone() for n, p in engine.model("").lm.model.named_parameters() if p.grad is not None}


def train(engine, seeds):
    for seed in seeds:
        engine.forward_backward("", f"fb-{seed}", random_spec(seed))
        engine.optim_step("", f"os-{seed}", STEP)


def test_accumulation_equals_one_large_batch(engine):
    pairs = unpack(random_batch(1, groups=6))
    halves = [pairs[: len(pairs) // 2], pairs[len(pairs) // 2 :]]
    loss = 0.0
    for half in halves:
        batch = as_batch(half)
        ones = np.ones(batch.num_targets, dtype=np.float32)
        loss += engine.forward_backward("", "", train_spec(batch, ones, EVERYTHING)).loss
    accumulated = copy_gradients(engine)
    engine.model("").optimizer.zero_grad()
    batch = as_batch(pairs)
    whole = engine.forward_backward("", "", train_spec(batch, np.ones(batch.num_targets, np.float32), EVERYTHING))
    assert whole.loss == pytest.approx(loss, rel=1e-6)
    for name, gradient in copy_gradients(engine).items():
        torch.testing.assert_close(gradient, accumulated[name], atol=1e-5, rtol=1e-4)


def test_policy_loss_through_the_model(engine):
    spec_ = random_spec(4)
    old = engine.forward("", forward_spec(spec_.batch, temperature=0.8)).logprobs
    adv = np.random.default_rng(0).normal(size=len(old)).astype(np.float32)
    loss = Policy(adv, old, old, 0.2, 0.28, 0.1)
    result = engine.forward_backward("", "", replace(spec_, loss=loss, temperature=0.8, want_logprobs=True))
    assert result.loss == pytest.approx(-(spec_.weights * adv).sum(), abs=1e-5)  # on-policy: ratio 1, KL 0
    np.testing.assert_allclose(result.logprobs, old, atol=1e-5)
    assert result.metrics["ratio_max"] == pytest.approx(1, abs=1e-4) and result.metrics["entropy"] > 0
    assert result.metrics["tokens"] == len(old) and result.metrics["kl"] == pytest.approx(0, abs=1e-6)


def test_constrained_gradient_matches_autograd_on_full_logits(engine):
    batch = as_batch([(np.asarray([1, 2, 3]), np.asarray([10, 20, 40, 11, 21, 41]))])
    constraint = permutation_constraint(
        np.asarray([3]), np.asarray([2, 2, 2]), np.asarray([10, 20, 11, 21, 10, 22], dtype=np.int32),
        np.asarray([0.1, -0.4, 0.9], dtype=np.float32), scale=1.7, separator=(40,), terminator=(41,), max_sequences=2,
    )  # fmt: skip
    weights = np.asarray([1, 2, 3, 4, 5, 6], dtype=np.float32)
    got = engine.forward_backward(
        "", "", train_spec(batch, weights, EVERYTHING, constraint, temperature=0.5, want_logprobs=True)
    )
    gradients = copy_gradients(engine)
    model = engine.model("").lm.model
    model.zero_grad()
    ids = torch.tensor([[1, 2, 3, 10, 20, 40, 11, 21, 41]])
    logits = model(input_ids=ids).logits[0]

    def log_softmax(position, tokens, bias):
        return ((1.7 * logits[position, tokens] + torch.tensor(bias)) / 0.5).log_softmax(-1)

    two = float(np.logaddexp(np.float32(0.1), np.float32(0.9)))
    want = [
        log_softmax(2, [10, 11], [two, -0.4])[0],
        log_softmax(3, [20, 22], [0.1, 0.9])[0],
        logits.new_zeros(()),
        log_softmax(5, [11, 10], [-0.4, 0.9])[0],
        logits.new_zeros(()),
        logits.new_zeros(()),
    ]
    loss = -(torch.from_numpy(weights) * torch.stack(want)).sum()
    loss.backward()
    np.testing.assert_allclose(got.logprobs, [w.item() for w in want], atol=1e-5)
    assert got.loss == pytest.approx(loss.item(), rel=1e-5) and got.metrics["forced_tokens"] == 3
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=2e-5, rtol=1e-4)


def test_all_weights_zero_is_a_zero_gradient_free_call(engine):
    spec_ = random_spec(2)
    result = engine.forward_backward("", "", replace(spec_, weights=np.zeros_like(spec_.weights)))
    assert result.loss == 0 and result.metrics["tokens"] == 0 and not copy_gradients(engine)


@pytest.mark.parametrize("extra", [{}, {"embedding_dropout": 0.2, "attention_dropout": 0.1}])
def test_resume_equals_uninterrupted_training(make_engine, tmp_path, extra):
    whole = make_engine(**extra)
    train(whole, range(3))
    info = whole.save_state("", str(tmp_path / "state"), True)
    train(whole, range(3, 6))
    resumed = Engine(torch.device("cpu"))
    resumed.load_model("", load_spec(path=str(tmp_path / "state"), trainable=True))
    state = resumed.load_state("", str(tmp_path / "state"), True)
    assert (state.step, state.sha256) == (3, info.sha256)
    assert resumed.model("").lm.embedding_dropout == extra.get("embedding_dropout", 0.0)
    train(resumed, range(3, 6))
    for name, weight in copy_weights(whole).items():
        assert torch.equal(weight, copy_weights(resumed)[name]), name


def test_runs_are_bit_identical_and_dropout_follows_the_seed(make_engine):
    engines = [make_engine(embedding_dropout=0.3) for _ in range(2)]
    losses = [[e.forward_backward("", "", replace(random_spec(1), seed=s)).loss for s in (1, 1, 2)] for e in engines]
    assert losses[0] == losses[1] and losses[0][0] == losses[0][1] != losses[0][2]
    first, second = (copy_gradients(e) for e in engines)
    assert all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("tied", [True, False])
def test_every_trainable_parameter_moves_and_a_frozen_model_does_not(make_engine, tied):
    engine = make_engine(tie_word_embeddings=tied)
    before = copy_weights(engine)
    train(engine, range(2))
    assert all(not torch.equal(before[n], w) for n, w in copy_weights(engine).items())
    engine.load_model("", spec(trainable=False))
    with pytest.raises(FailedPrecondition, match="trainable=false"):
        engine.forward_backward("", "", random_spec(1))
    assert not any(p.requires_grad for p in engine.model("").lm.model.parameters())


def test_decay_spares_norms_and_embeddings(engine):
    groups = engine.model("").optimizer._adamw.param_groups
    decayed = {id(p) for g in groups if g["decays"] for p in g["params"]}
    names = {n for n, p in engine.model("").lm.model.named_parameters() if id(p) in decayed}
    assert names and all("proj" in n for n in names)


def test_adamw_step_matches_the_equation(engine):
    engine.forward_backward("", "", random_spec(1))
    name = "model.layers.0.mlp.up_proj.weight"
    before, gradient = copy_weights(engine)[name], copy_gradients(engine)[name]
    result = engine.optim_step("", "", adamw_params(1e-2, weight_decay=0.1, eps=1e-8))
    want = before * (1 - 1e-2 * 0.1) - 1e-2 * gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(copy_weights(engine)[name], want, atol=1e-6, rtol=1e-5)
    assert (result.step, result.weight_version) == (1, 2) and result.grad_norm > 0


def test_a_cancelled_call_adds_nothing(engine):
    engine.forward_backward("", "", random_spec(1))
    before = copy_gradients(engine)
    calls = iter(range(100))

    def check():
        if next(calls) == 2:
            raise Cancelled("gone")

    with pytest.raises(Cancelled):
        engine.forward_backward("", "x", random_spec(2, micro_batch_tokens=20), check)
    assert all(torch.equal(before[n], g) for n, g in copy_gradients(engine).items())
    assert not engine.model("").lm.model.training


def test_out_of_memory_names_the_knob(engine, monkeypatch):
    def explode(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine.model("").lm, "hidden", explode)
    with pytest.raises(ResourceExhausted, match="micro_batch_tokens"):
        engine.forward("", forward_spec(random_batch(1)))


def test_gradient_checkpointing_gives_the_same_gradient(engine):
    engine.forward_backward("", "", random_spec(1))
    plain = copy_gradients(engine)
    engine.load_model("", replace(spec(), gradient_checkpointing=True))
    engine.forward_backward("", "", random_spec(1))
    for name, gradient in copy_gradients(engine).items():
        torch.testing.assert_close(gradient, plain[name], atol=1e-6, rtol=1e-5)


def test_logits_are_computed_where_a_token_is_predicted_and_a_few_at_a_time(engine, monkeypatch):
    """One row of logits a trained target and none for prompts;
    in chunks of 3 rows the same loss and gradient as at once.
    """
    batch = random_batch(8, groups=3)
    rng = np.random.default_rng(8)
    weights = rng.uniform(0.5, 1, size=batch.num_targets).astype(np.float32)
    weights[::4] = 0
    spec_ = train_spec(batch, weights, EVERYTHING)
    model, rows = engine.model("").lm, []
    logits = model.logits
    monkeypatch.setattr(model, "logits", lambda hidden: (rows.append(len(hidden)), logits(hidden))[1])
    one = engine.forward_backward("", "", spec_)
    at_once = engine.model("").optimizer.snapshot_gradient()
    assert sum(rows) == int((weights != 0).sum())
    engine.model("").optimizer.zero_grad()
    rows.clear()
    monkeypatch.setattr(logprobs, "MIN_ROWS", 1)
    monkeypatch.setattr(logprobs, "MAX_LOGITS_CPU", 3 * model.vocab_size)
    chunked = engine.forward_backward("", "", spec_)
    assert max(rows) == 3 and sum(rows) == int((weights != 0).sum())
    assert chunked.loss == pytest.approx(one.loss, rel=1e-6)
    for name, gradient in engine.model("").optimizer.snapshot_gradient().items():
        torch.testing.assert_close(gradient, at_once[name], atol=1e-5, rtol=1e-5)


def test_bfloat16_trains_float32_masters(engine):
    engine.load_model("", replace(spec(), dtype="bfloat16"))
    before = copy_weights(engine)
    train(engine, range(2))
    assert all(w.dtype == torch.float32 and not torch.equal(w, before[n]) for n, w in copy_weights(engine).items())
    engine.load_model("", replace(spec(trainable=False), dtype="bfloat16"))
    assert {w.dtype for w in copy_weights(engine).values()} == {torch.bfloat16}
    logprobs = engine.forward("", forward_spec(random_batch(1))).logprobs
    assert np.isfinite(logprobs).all()


# ---------------------------------------------------------------- state and vocabulary


def test_save_replaces_states_only_and_leaves_nothing_behind(engine, tmp_path):
    folder = tmp_path / "state"
    first = engine.save_state("", str(folder), True)
    train(engine, [0])
    second = engine.save_state("", str(folder), True)
    assert first.sha256 != second.sha256
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state"]
    assert {p.suffix for p in folder.iterdir()} == {".json", ".safetensors"}
    other = tmp_path / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("x")
    with pytest.raises(InvalidRequest, match="refusing"):
        engine.save_state("", str(other), False)
    with pytest.raises(InvalidRequest, match="absolute"):
        engine.save_state("", "relative", False)


def test_damaged_or_foreign_states_are_refused(engine, make_engine, tmp_path):
    folder = tmp_path / "state"
    engine.save_state("", str(folder), False)
    with pytest.raises(FailedPrecondition, match="differs from the loaded model in architecture"):
        make_engine(num_hidden_layers=3).load_state("", str(folder), False)
    with pytest.raises(FailedPrecondition, match="without optimizer"):
        engine.load_state("", str(folder), True)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(FailedPrecondition, match="damaged"):
        engine.load_state("", str(folder), False)
    with pytest.raises(NotFound):
        engine.load_state("", str(tmp_path / "none"), False)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"format_version": 2}, "has format_version 2, this worker reads 1"), ({"format_version": None}, "is damaged")],
)
def test_states_of_another_format_are_refused(engine, tmp_path, change, message):
    folder = tmp_path / "state"
    engine.save_state("", str(folder), False)
    note = json.loads((folder / "gr2_state.json").read_text())
    kept = {name: value for name, value in {**note, **change}.items() if value is not None}
    (folder / "gr2_state.json").write_text(json.dumps(kept))
    with pytest.raises(FailedPrecondition, match=message):
        engine.load_state("", str(folder), False)


@pytest.mark.parametrize("tied", [True, False])
def test_added_tokens_extend_a_pretrained_model(make_engine, tmp_path, tied):
    make_engine(tie_word_embeddings=tied).save_state("", str(tmp_path / "base"), False)
    loads = []
    for _ in range(2):
        engine = Engine(torch.device("cpu"))
        loaded = engine.load_model(
            "", load_spec(path=str(tmp_path / "base"), added_tokens=("<a>", "w5", "<b>"), seed=4, pad_vocab_multiple=64)
        )
        loads.append(loaded)
    assert loaded.added_token_ids == [VOCAB, 5, VOCAB + 1] and loaded.vocab_size == 64
    assert loaded.tokenizer.encode("w1<a>").ids[-1] == VOCAB
    for module in ("get_input_embeddings", "get_output_embeddings"):
        weights = [getattr(m.model, module)().weight for m in loads]
        assert torch.equal(*weights)
        old, new = weights[0][:VOCAB], weights[0][VOCAB:]
        assert (new - old.mean(0)).abs().max() < 6 * 0.1 * old.std(0).max() and not torch.equal(new[0], new[1])
    assert (loaded.model.get_input_embeddings().weight is loaded.model.get_output_embeddings().weight) == tied


def test_loading_errors(tmp_path):
    engine = Engine(torch.device("cpu"))
    with pytest.raises(FailedPrecondition, match="no model is loaded"):
        engine.forward("", forward_spec(random_batch(1)))
    with pytest.raises(NotFound):
        engine.load_model("", load_spec(path=str(tmp_path / "none")))
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(NotFound, match="pickled weights are never loaded"):
        engine.load_model("", load_spec(path=str(tmp_path / "pickled")))
    for text, match in (("{", "not JSON"), ("{}", "model_type"), (json.dumps({"model_type": "nope"}), "not supported")):
        with pytest.raises(InvalidRequest, match=match):
            engine.load_model("", load_spec(architecture_json=text, tokenizer_json=tokenizer_json()))
    engine.load_model("", spec())
    engine.save_state("", str(tmp_path / "mute"), False)
    (tmp_path / "mute" / "tokenizer.json").unlink()
    (tmp_path / "mute" / "tokenizer_config.json").unlink()
    with pytest.raises(FailedPrecondition, match="tokenizer"):
        engine.load_model("", load_spec(path=str(tmp_path / "mute")))


def test_a_policy_gradient_sees_the_policy_that_was_sampled_from(make_engine):
    engine = make_engine(embedding_dropout=0.3, attention_dropout=0.2)
    batch = random_batch(3, groups=3)
    logprobs = engine.forward("", forward_spec(batch)).logprobs
    weights = np.full(batch.num_targets, 1 / batch.num_targets, dtype=np.float32)
    loss = Policy(np.ones_like(weights), logprobs, None, 0.2, 0.28, 0.0)
    result = engine.forward_backward("", "", train_spec(batch, weights, loss, want_logprobs=True, seed=1))
    np.testing.assert_allclose(result.logprobs, logprobs, atol=1e-5)
    assert result.metrics["ratio_max"] == pytest.approx(1, abs=1e-4)
    model = engine.model("").lm
    assert model.embedding_dropout == 0.3 and not model.model.training
    # Supervised losses keep their dropout.
    noisy = engine.forward_backward("", "", train_spec(batch, weights, EVERYTHING, want_logprobs=True, seed=1))
    assert np.abs(noisy.logprobs - logprobs).max() > 1e-3


def test_sampled_cross_entropy_is_exact_with_all_tokens_and_close_with_a_sample(engine):
    """Z over the batch's targets and drawn others: with all others it is the softmax, with some an estimate of it."""
    batch = random_batch(7, groups=6)
    ones = np.ones(batch.num_targets, dtype=np.float32)

    def logprobs(negatives, seed=0):
        spec_ = train_spec(batch, ones, CrossEntropy(negatives), want_logprobs=True, seed=seed)
        result = engine.forward_backward("", "", spec_)
        gradients = copy_gradients(engine)
        engine.model("").optimizer.zero_grad()
        return result.logprobs, gradients

    exact, exact_gradients = logprobs(0)
    every, every_gradients = logprobs(VOCAB)
    np.testing.assert_allclose(every, exact, atol=1e-5)
    for name, gradient in every_gradients.items():
        torch.testing.assert_close(gradient, exact_gradients[name], atol=1e-5, rtol=1e-4)
    few = [logprobs(VOCAB // 4, seed)[0] for seed in range(40)]
    assert not np.allclose(few[0], few[1]), "another seed draws others"
    np.testing.assert_array_equal(few[0], logprobs(VOCAB // 4, 0)[0])
    # The estimate of Z is unbiased: Z' / Z = exp(exact log p - estimated log p) is 1 on average.
    ratios = np.exp(exact[None] - np.stack(few))
    assert ratios.mean() == pytest.approx(1.0, abs=4 * ratios.mean(axis=1).std() / np.sqrt(len(few)))
    assert ratios.std() > 0.01, "and it is an estimate"
