"""The likeliest alternatives of every target, and the forward KL over them, against plain PyTorch that walks every
response token by token: unconstrained, under a constraint, and as a choice among whole sequences.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from asked import forward_spec, sample_params, train_spec
from conftest import VOCAB, spec, unpack
from gr2_worker.engine import Engine
from gr2_worker.errors import InvalidRequest
from gr2_worker.scoring import logprobs
from gr2_worker.types import Distill, TopTokens
from test_sampler import draw, make_batch, make_constraint, make_prompts

TRIGGER, MAX_FREE = 7, 6
KINDS = ("free", "constrained", "ranked")


def make(kind, seed=0):
    """An engine with student and teacher, a sampled batch and its constraint; one group of four is unconstrained."""
    engine = Engine(torch.device("cpu"))
    engine.load_model("", spec(seed=1))
    engine.load_model("teacher", spec(seed=2, trainable=False, hidden_size=48))
    prompts = make_prompts(seed, 4)
    constraint = None
    if kind != "free":
        constraint = make_constraint(prompts, trigger=(TRIGGER,), free=(2,))
        constraint = replace(constraint, max_free_tokens=MAX_FREE, whole_sequences=kind == "ranked")
    params = sample_params(
        prompts, 2, 40 if constraint else 8, temperature=0.8, seed=seed, constraint=constraint, stop_tokens=(9,)
    )
    return engine, make_batch(prompts, draw(engine, params), 2), constraint


def compute_log_softmax(lm, tokens):
    """Logits [T, V] of what follows each token of a plain sequence, with graph."""
    ids = torch.tensor([[*map(int, tokens)]])
    return lm.logits(lm.hidden(ids, torch.arange(ids.shape[1])[None])[0])


def walk(lm, prompt, response, constraint, entry, temperature):
    """(names, log-probs) of everything open at each token of a response, by the definitions in worker.proto."""
    prompt, response = prompt.tolist(), response.tolist()
    logits = compute_log_softmax(lm, prompt + response)[len(prompt) - 1 :]
    everything = list(range(VOCAB))
    certain = lambda token: ([token], torch.zeros(1))  # noqa: E731
    count = 0 if constraint is None else int(constraint.sequence_counts[entry])
    out = []
    if count == 0:
        return [(everything, (logits[t] / temperature).log_softmax(0)) for t in range(len(response))]
    begin = int(constraint.sequence_counts[:entry].sum())
    spelled = constraint.sequence_tokens.reshape(-1, 3)[begin : begin + count].tolist()
    prior = constraint.prior[begin : begin + count].tolist()
    at = 0
    while at < len(response):  # up to the trigger
        token = response[at]
        forced = at >= MAX_FREE
        out.append(certain(token) if forced else (everything, (logits[at] / temperature).log_softmax(0)))
        at += 1
        if token == TRIGGER:
            break
    context = prompt + response[:at]
    left = list(range(count))
    if constraint.whole_sequences and at < len(response):
        likelihood = {}
        for j in left:
            following = compute_log_softmax(lm, context + spelled[j])[len(context) - 1 : -1].log_softmax(1)
            likelihood[j] = following[torch.arange(3), torch.tensor(spelled[j])].sum()
    while left and at < len(response):
        chosen = spelled.index(response[at : at + 3])
        if constraint.whole_sequences:
            scores = torch.stack([(constraint.scale * likelihood[j] + prior[j]) / temperature for j in left])
            out += [(list(left), scores.log_softmax(0)), *map(certain, response[at + 1 : at + 3])]
        else:
            for n in range(3):
                through = [j for j in left if spelled[j][:n] == spelled[chosen][:n]]
                tokens = sorted({spelled[j][n] for j in through})
                mass = [np.logaddexp.reduce([prior[j] for j in through if spelled[j][n] == t]) for t in tokens]
                scores = (constraint.scale * logits[at + n][tokens] + torch.tensor(mass)) / temperature
                out.append((tokens, scores.float().log_softmax(0)))
        left.remove(chosen)
        at += 3
        fixed = 1 if left else 2  # separator, terminator
        out += map(certain, response[at : at + fixed])
        at += fixed
    return out


def reference(engine, name, batch, constraint, temperature):
    lm = engine.model(name).lm
    pairs = zip(unpack(batch), batch.group_of_response.tolist(), strict=True)
    return [step for (p, r), entry in pairs for step in walk(lm, p, r, constraint, entry, temperature)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [3, 100])
def test_top_tokens_equal_plain_pytorch(kind, k):
    engine, batch, constraint = make(kind)
    result = engine.forward("", forward_spec(batch, constraint, temperature=0.8, top_k=k))
    plain = engine.forward("", forward_spec(batch, constraint, temperature=0.8))
    np.testing.assert_array_equal(result.logprobs, plain.logprobs)
    assert plain.top is None and result.top.ids.shape == (batch.num_targets, k)
    with torch.no_grad():
        expected = reference(engine, "", batch, constraint, 0.8)
    assert len(expected) == batch.num_targets
    sizes = set()
    for (names, log_probs), ids, found in zip(expected, result.top.ids, result.top.logprobs, strict=True):
        n = min(k, len(names))
        sizes.add(len(names))
        values, order = log_probs.topk(n)
        np.testing.assert_allclose(found[:n], values.numpy(), atol=3e-5)
        assert (ids[n:] == -1).all() and (found[n:] == -np.inf).all()
        if n < len(names) and values[-1] - log_probs.sort(descending=True).values[n] < 1e-4:
            continue  # a tie at the end
        assert set(ids[:n].tolist()) == {names[c] for c in order.tolist()}
    expected_sizes = {"free": {VOCAB}, "constrained": {VOCAB, 1, 2, 3}, "ranked": {VOCAB, 1, 2, 3, 4}}[kind]
    assert sizes == expected_sizes


def test_padding_of_the_vocabulary_is_never_named():
    engine = Engine(torch.device("cpu"))
    engine.load_model("", replace(spec(), pad_vocab_multiple=128))
    assert engine.model("").lm.vocab_size == 128
    prompts = make_prompts(0, 2)
    batch = make_batch(prompts, {(p, 0): type("Item", (), {"tokens": np.asarray([1, 2])}) for p in range(2)}, 1)
    top = engine.forward("", forward_spec(batch, top_k=100)).top
    assert [sorted(row) for row in top.ids.tolist()] == [[-1] * (100 - VOCAB) + list(range(VOCAB))] * 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("k", [2, 100])
def test_loss_and_gradient_equal_plain_pytorch(kind, k):
    engine, batch, constraint = make(kind)
    teacher = engine.forward("teacher", forward_spec(batch, constraint, temperature=0.8, top_k=k)).top
    weights = np.random.default_rng(0).uniform(0.5, 1.5, batch.num_targets).astype(np.float32)
    weights[::5] = 0
    trained = train_spec(batch, weights, Distill(teacher), constraint, temperature=0.8, want_logprobs=True)
    result = engine.forward_backward("", "", trained)
    model = engine.model("").lm.model
    got = torch.cat([p.grad.flatten() for p in model.parameters()])
    forward = engine.forward("", forward_spec(batch, constraint, temperature=0.8))
    np.testing.assert_allclose(result.logprobs, forward.logprobs, atol=1e-5)

    model.zero_grad()
    with torch.no_grad():
        wanted = reference(engine, "teacher", batch, constraint, 0.8)
    total = torch.zeros(())
    kl = 0.0
    for w, (names, q), (own_names, p) in zip(
        weights, wanted, reference(engine, "", batch, constraint, 0.8), strict=True
    ):
        assert names == own_names
        order = q.argsort(descending=True)
        top, rest = order[:k], order[k:]
        loss = (q[top].exp() * (q[top] - p[top])).sum()
        if len(rest):
            outside = q[rest].logsumexp(0)
            loss = loss + outside.exp() * (outside - p[rest].logsumexp(0))
        total = total + float(w) * loss
        kl += float(loss.detach()) * bool(w)
    total.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert result.loss == pytest.approx(total.item(), rel=1e-4)
    assert result.metrics["forward_kl"] == pytest.approx(kl / (weights != 0).sum(), rel=1e-4)
    torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_do_not_change_anything(kind, monkeypatch):
    engine, batch, constraint = make(kind)
    teacher = engine.forward("teacher", forward_spec(batch, constraint, top_k=4)).top
    weights = np.ones(batch.num_targets, dtype=np.float32)
    found = []
    for logits, rows, budget in ((1 << 21, 64, 16384), (1, 3, 64)):  # all at once; three tokens at a time
        monkeypatch.setattr(logprobs, "MAX_LOGITS_CPU", logits)
        monkeypatch.setattr(logprobs, "MIN_ROWS", rows)
        spec_ = train_spec(batch, weights, Distill(teacher), constraint, micro_batch_tokens=budget)
        result = engine.forward_backward("", "", spec_)
        gradient = torch.cat([p.grad.flatten().clone() for p in engine.model("").lm.model.parameters()])
        engine.model("").optimizer.zero_grad()
        again = engine.forward("teacher", forward_spec(batch, constraint, top_k=4, micro_batch_tokens=budget)).top
        np.testing.assert_allclose(again.logprobs, teacher.logprobs, atol=2e-5)
        found.append((result.loss, gradient))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=2e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_has_nothing_to_learn_from_itself(kind, dtype):
    engine, batch, constraint = make(kind)
    engine.load_model("", replace(spec(seed=1), dtype=dtype))
    own = engine.forward("", forward_spec(batch, constraint, top_k=5)).top
    weights = np.full(batch.num_targets, 1 / batch.num_targets, dtype=np.float32)
    result = engine.forward_backward("", "", train_spec(batch, weights, Distill(own), constraint))
    assert abs(result.loss) < 1e-6
    for parameter in engine.model("").lm.model.parameters():
        assert float(parameter.grad.abs().max()) < 1e-5


def test_a_rest_of_almost_nothing_keeps_its_digits():
    logits = torch.zeros(1, 10, dtype=torch.float32)
    logits[0, 0] = 30.0  # the nine others together: 9 exp(-30), far below float32's 1 - p
    logits.requires_grad_()
    both = logprobs.given_and_rest(logits.log_softmax(dim=1), torch.tensor([[0, -1]]))
    assert float(both[0, -1].detach()) == pytest.approx(np.log(9) - 30, rel=1e-6)
    both[0, -1].backward()
    assert torch.isfinite(logits.grad).all()


def test_nothing_left_besides_the_given_has_a_gradient():
    logits = torch.tensor([[1.0, 2.0, -np.inf]], requires_grad=True)
    both = logprobs.given_and_rest(logits.log_softmax(dim=1), torch.tensor([[1, 0]]))
    assert both[0, 2] == -np.inf
    both[0, :2].sum().backward()
    assert torch.isfinite(logits.grad[0, :2]).all()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("free", lambda ids: np.where(ids == ids[:, :1], VOCAB, ids)),  # no such token
        ("free", lambda ids: np.full_like(ids, -1)),  # nothing given
        ("free", lambda ids: np.repeat(ids[:, :1], ids.shape[1], axis=1)),  # one of them twice
        ("constrained", lambda ids: np.where(ids >= 0, 60, -1)),  # never open
        ("ranked", lambda ids: np.where((ids >= 0) & (ids < 4), 4, ids)),  # of four sequences the fifth
    ],
)
def test_alternatives_that_are_not_open_are_refused(kind, change):
    engine, batch, constraint = make(kind)
    top = engine.forward("teacher", forward_spec(batch, constraint, top_k=2)).top
    wrong = TopTokens(change(top.ids).astype(np.int32), top.logprobs)
    weights = np.ones(batch.num_targets, dtype=np.float32)
    with pytest.raises(InvalidRequest, match="must be open there"):
        engine.forward_backward("", "", train_spec(batch, weights, Distill(wrong), constraint))


def test_a_sequence_already_used_is_refused():
    engine, batch, constraint = make("ranked")
    top = engine.forward("teacher", forward_spec(batch, constraint, top_k=4)).top
    second = np.flatnonzero(np.isfinite(top.logprobs).sum(axis=1) == 3)  # places with three left of four
    used = next(j for j in range(4) if j not in top.ids[second[0]])
    ids = top.ids.copy()
    ids[second[0], 0] = used
    with pytest.raises(InvalidRequest, match=f"target {second[0]} "):
        spec_ = train_spec(
            batch, np.ones(batch.num_targets, np.float32), Distill(TopTokens(ids, top.logprobs)), constraint
        )
        engine.forward_backward("", "", spec_)
