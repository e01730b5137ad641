"""Who gets which semantic ID: uniqueness, stability, taken IDs, damaged artifacts."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from asked import quantizer_config
from gr2_worker.errors import InvalidRequest
from gr2_worker.items import quantizer
from gr2_worker.items.config import QuantizerConfig
from gr2_worker.items.quantizer import encode, fit, uniqueness
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TINY = quantizer_config(levels=3, codes=16, latent_dim=8, hidden_dims=(32,), epochs=5, batch_size=64, seed=1)
KMEANS = dataclasses.replace(TINY, method="rqkmeans")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def clustered(n: int, d: int = 24, clusters: int = 12, seed: int = 0, spread: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((clusters, d))
    x = centres[rng.integers(clusters, size=n)] + rng.standard_normal((n, d)) * spread
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def ids(codes: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(row) for row in codes.tolist()}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_default_settings_give_at_least_99_percent_their_own_id(seed: int) -> None:
    config = quantizer_config(seed=seed, epochs=3)
    result = fit(clustered(1200, d=64, clusters=40, seed=seed), config)
    assert result.codes.shape == (1200, 4) and result.codes.dtype == np.int32
    assert result.codes.min() >= 0 and result.codes.max() < 256
    assert result.metrics["uniqueness"] >= 0.99
    assert result.metrics["uniqueness"] == uniqueness(result.codes)


@pytest.mark.parametrize("config", [TINY, KMEANS])
def test_without_the_random_last_level_codes_are_the_nearest(config: QuantizerConfig) -> None:
    x = clustered(300)
    plain = fit(x, dataclasses.replace(config, random_last_level=False))
    random = fit(x, config)
    assert plain.metrics["uniqueness"] == plain.metrics["uniqueness_nearest"] == random.metrics["uniqueness_nearest"]
    assert plain.metrics["uniqueness"] < random.metrics["uniqueness"] == 1.0
    stayed = (plain.codes[:, :-1] == random.codes[:, :-1]).all(axis=1)
    assert (~stayed).sum() == random.metrics["moved_items"]
    np.testing.assert_array_equal(encode(plain.artifact, x, None), plain.codes)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_capacity_for_all_means_an_id_for_all(data: st.DataObject) -> None:
    levels = data.draw(st.integers(1, 3), "levels")
    codes = data.draw(st.integers(2, 5), "codes")
    n = data.draw(st.integers(1, codes**levels), "items")
    distinct = data.draw(st.integers(1, n), "distinct embeddings")
    seed = data.draw(st.integers(0, 1000), "seed")
    x = clustered(distinct, d=4, clusters=2, seed=seed)[np.random.default_rng(seed).integers(distinct, size=n)]
    method = data.draw(st.sampled_from(["rqkmeans", "rqvae"]), "method")
    config = quantizer_config(
        method=method, levels=levels, codes=codes, latent_dim=2, hidden_dims=(), epochs=1, seed=seed
    )
    result = fit(x, config)
    assert result.metrics["uniqueness"] == 1.0
    assert result.metrics["colliding_items"] == 0
    np.testing.assert_array_equal(encode(result.artifact, x, None), result.codes)
    capacity = codes**levels - n
    more = clustered(min(capacity, 6), d=4, seed=seed + 1) if capacity > 0 else x[:0]
    new = encode(result.artifact, more, None)
    assert len(ids(new)) == len(new) and not ids(new) & ids(result.codes)


def test_items_of_a_full_prefix_move_to_the_nearest_sibling() -> None:
    # 12 equal items, 4 codes per level: their nearest prefix holds 4; the others go to the siblings, nearest first.
    x = np.concatenate([np.zeros((12, 3)), np.eye(3)]).astype(np.float32)
    config = quantizer_config(method="rqkmeans", levels=3, codes=4, epochs=10)
    result = fit(x, config)
    assert result.metrics["largest_bucket"] >= 12
    assert result.metrics["uniqueness"] == 1.0
    assert result.metrics["moved_items"] == 8
    assert len({tuple(c[:1]) for c in result.codes[:12].tolist()}) == 1  # level 1 is kept, level 2 gives way
    buckets = [tuple(c[:2]) for c in result.codes[:12].tolist()]
    assert sorted(buckets.count(b) for b in set(buckets)) == [4, 4, 4]
    stored = safetensors.numpy.load(result.artifact)
    residual = (0.0 - stored["mean"]) / stored["scale"] - stored["codebook.0"][buckets[0][0]]
    nearest_first = ((residual - stored["codebook.1"]) ** 2).sum(axis=1).argsort()
    assert {b[1] for b in buckets} == set(nearest_first[:3].tolist())


def test_more_items_than_ids_collide_and_are_counted() -> None:
    result = fit(clustered(30, d=4), quantizer_config(method="rqkmeans", levels=2, codes=4, epochs=5))
    assert len(ids(result.codes)) == 16
    assert result.metrics["uniqueness"] < 1
    assert result.metrics["colliding_items"] == round((1 - uniqueness(result.codes)) * 30) > 0


@pytest.mark.parametrize("config", [TINY, KMEANS])
def test_fit_depends_on_the_seed_alone(config: QuantizerConfig) -> None:
    x = clustered(200)
    a, b = fit(x, config), fit(x, config)
    assert a.artifact == b.artifact
    np.testing.assert_array_equal(a.codes, b.codes)
    assert a.metrics == b.metrics
    assert not np.array_equal(a.codes, fit(x, dataclasses.replace(config, seed=2)).codes)


@pytest.mark.parametrize("config", [TINY, KMEANS])
def test_ids_survive_reload_batch_size_and_order(config: QuantizerConfig, tmp_path: Path) -> None:
    x, new = clustered(250), clustered(40, seed=5)
    x[7] = x[3] = x[11]  # equal embeddings keep IDs of their own
    result = fit(x, config)
    np.testing.assert_array_equal(encode(result.artifact, x, None), result.codes)
    order = np.random.default_rng(0).permutation(250)
    order = np.array([r for r in order if r not in (3, 7, 11)])
    np.testing.assert_array_equal(encode(result.artifact, x[order], None), result.codes[order])

    at_once = encode(result.artifact, new, result.codes)
    taken = result.codes
    for row in range(len(new)):
        one = encode(result.artifact, new[row : row + 1], taken)
        np.testing.assert_array_equal(one[0], at_once[row])
        taken = np.concatenate([taken, one])
    if config.method == "rqkmeans":
        return  # one fresh process is enough: both methods share the code that encodes

    (tmp_path / "artifact").write_bytes(result.artifact)
    np.save(tmp_path / "new.npy", new)
    np.save(tmp_path / "x.npy", x)
    script = (
        "import sys, numpy as np; from gr2_worker.items.quantizer import encode; d = sys.argv[1]\n"
        "a = open(d + '/artifact', 'rb').read()\n"
        "np.save(d + '/out.npy', np.concatenate([encode(a, np.load(d + '/' + f), None) for f in ('x.npy', 'new.npy')]))"
    )
    env = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "3"}
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, env=env)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), np.concatenate([result.codes, at_once]))


def test_new_items_never_get_a_taken_or_fitted_id() -> None:
    x = clustered(100)
    result = fit(x, dataclasses.replace(TINY, codes=6))
    new = clustered(60, seed=9)
    for taken in (None, result.codes):
        got = encode(result.artifact, new, taken)
        assert len(ids(got)) == 60 and not ids(got) & ids(result.codes)
    # An item whose embedding equals a fitted one's, while that one's ID is taken: another item, another ID.
    twin = encode(result.artifact, x[:5], result.codes)
    assert not ids(twin) & ids(result.codes)
    # Fitted rows among new ones keep theirs.
    np.testing.assert_array_equal(encode(result.artifact, np.concatenate([new, x]), None)[60:], result.codes)


def test_apart_every_item_gets_what_it_would_get_alone() -> None:
    result = fit(clustered(60), TINY)
    near = clustered(3, seed=5)
    new = np.concatenate([near, near[:1], near + np.float32(1e-4)])  # equal and all but equal items
    got = encode(result.artifact, new, apart=True)
    for row in range(len(new)):
        np.testing.assert_array_equal(got[row : row + 1], encode(result.artifact, new[row : row + 1]))
    assert tuple(got[0]) == tuple(got[3])
    assert len(ids(encode(result.artifact, new))) == len(new)  # together they avoid each other
    assert not ids(got) & ids(result.codes)


def test_taken_ids_are_avoided_without_the_random_last_level_too() -> None:
    x = clustered(100)
    result = fit(x, dataclasses.replace(TINY, random_last_level=False))
    new = clustered(80, seed=9)
    got = encode(result.artifact, new, result.codes)
    assert len(ids(got)) == 80 and not ids(got) & ids(result.codes)


def test_the_last_id_is_found_and_none_is_an_error() -> None:
    config = quantizer_config(method="rqkmeans", levels=2, codes=3, epochs=5)
    result = fit(clustered(5, d=4), config)
    every = np.array([[a, b] for a in range(3) for b in range(3)])
    free = sorted(ids(every) - ids(result.codes))
    new = clustered(4, d=4, seed=3)
    taken = np.array([c for c in every.tolist() if tuple(c) != free[0]])
    assert ids(encode(result.artifact, new[:1], taken)) == {free[0]}
    with pytest.raises(InvalidRequest, match="all 9 semantic IDs are taken"):
        encode(result.artifact, new[:2], taken)


@pytest.mark.parametrize("config", [TINY, KMEANS])
def test_metrics_are_complete_and_true(config: QuantizerConfig) -> None:
    seen: list[tuple[int, int]] = []
    errors: list[float] = []

    def on_progress(epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        seen.append((epoch, epochs))
        errors.append(metrics["reconstruction"])

    result = fit(clustered(300), config, None, on_progress)
    if config.method == "rqkmeans":  # of the whole embedding, the directions left out included
        assert errors[-1] == pytest.approx(result.metrics["reconstruction"], rel=1e-6)
    total = 5 if config.method == "rqvae" else 3
    assert seen == [(i, total) for i in range(1, total + 1)]
    for level in range(3):
        assert result.metrics[f"usage_{level}"] == len(np.unique(result.codes[:, level])) / 16
        assert 1 <= result.metrics[f"perplexity_{level}"] <= 16
    assert 0 < result.metrics["reconstruction"] < 1.5
    assert all(isinstance(v, float) and np.isfinite(v) for v in result.metrics.values())


def test_training_longer_reconstructs_better() -> None:
    x = clustered(300)
    short = fit(x, dataclasses.replace(TINY, epochs=1)).metrics["reconstruction"]
    assert fit(x, dataclasses.replace(TINY, epochs=40)).metrics["reconstruction"] < short


def test_one_item_equal_items_and_constant_dimensions() -> None:
    for x in (np.ones((1, 5)), np.zeros((9, 5)), np.ones((4, 1))):
        for config in (TINY, KMEANS):
            result = fit(x.astype(np.float32), config)
            assert result.metrics["uniqueness"] == 1.0
            np.testing.assert_array_equal(encode(result.artifact, x.astype(np.float32), None), result.codes)


@pytest.mark.parametrize(
    ("x", "pairs", "message"),
    [
        (np.zeros((0, 4)), None, "no item embeddings"),
        (np.zeros(4), None, "shape"),
        (np.array([[0.0, np.nan]]), None, "not finite"),
        (np.zeros((2, 2)), np.array([[0, 2]]), "2 items"),
        (np.zeros((2, 2)), np.array([0, 1]), "pairs"),
    ],
)
def test_malformed_input_is_refused(x: np.ndarray, pairs: np.ndarray | None, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        fit(x.astype(np.float32), TINY, pairs)


@pytest.mark.parametrize(
    "change",
    [{"levels": 0}, {"codes": 0}, {"ema_decay": 1.0}, {"method": "pq"}, {"learning_rate": 0.0}, {"commitment": -1.0}],
)
def test_impossible_settings_name_the_field(change: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(change))):
        dataclasses.replace(TINY, **change)


def test_damaged_artifacts_and_wrong_shapes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clustered(50)
    result = fit(x, TINY)
    for broken in (b"", b"nonsense", result.artifact[:-3], result.artifact[:100]):
        with pytest.raises(InvalidRequest, match="not a usable quantizer artifact"):
            encode(broken, x, None)
    with pytest.raises(InvalidRequest, match="24"):
        encode(result.artifact, x[:, :5], None)
    with pytest.raises(InvalidRequest, match="taken"):
        encode(result.artifact, x, np.zeros((1, 2), np.int32))
    with pytest.raises(InvalidRequest, match="taken"):
        encode(result.artifact, x, np.array([[0, 0, 16]]))
    monkeypatch.setattr(quantizer, "ARTIFACT_VERSION", 2)
    with pytest.raises(InvalidRequest, match="version 1"):
        encode(result.artifact, x, None)


def test_no_new_items_give_no_ids() -> None:
    result = fit(clustered(20), TINY)
    assert encode(result.artifact, np.zeros((0, 24), np.float32), None).shape == (0, 3)
