"""Boosted trees that order rows of groups: deterministic, out of fold, stopped where held-out NDCG stops rising."""

from __future__ import annotations

import sys
from dataclasses import replace

import lightgbm
import numpy as np
import pytest
from gr2_worker.errors import FailedPrecondition, InvalidRequest
from gr2_worker.trees import FittedTrees, TreesConfig, fit_trees

CONFIG = TreesConfig(
    max_trees=30,
    learning_rate=0.2,
    leaves=8,
    min_leaf_rows=10,
    l2=1.0,
    feature_share=0.8,
    max_bins=63,
    top=5,
    patience=5,
    seed=3,
)
GROUPS, ROWS = 240, 8


def data(signal: float = 3.0, seed: int = 0):
    """Groups of eight rows, one of them relevant; the first feature tells which, if `signal` > 0.
    NaN here and there.
    """
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((GROUPS * ROWS, 4)).astype(np.float32)
    relevant = rng.integers(0, ROWS, GROUPS) + ROWS * np.arange(GROUPS)
    labels = np.zeros(GROUPS * ROWS, dtype=np.int32)
    labels[relevant] = 1
    features[relevant, 0] += signal
    features[rng.random(features.shape) < 0.05] = np.nan
    sizes = np.full(GROUPS, ROWS, dtype=np.int32)
    folds = (np.arange(GROUPS) % 3).astype(np.int32)
    return features, labels, sizes, folds


def fit(config: TreesConfig = CONFIG, threads: int = 1, **changed: object) -> FittedTrees:
    features, labels, sizes, folds = data()
    given = {"features": features, "labels": labels, "gains": [0.0, 1.0], "group_sizes": sizes, "folds": folds}
    seen: list[tuple[int, int, float]] = []
    return fit_trees(**{**given, **changed}, config=config, threads=threads, on_progress=lambda *p: seen.append(p))


def ndcg(scores: np.ndarray, labels: np.ndarray, top: int) -> float:
    """Mean over groups with one relevant row."""
    total = 0.0
    for s, y in zip(scores.reshape(-1, ROWS), labels.reshape(-1, ROWS), strict=True):
        rank = int((s > s[y == 1]).sum()) + 1
        total += 1 / np.log2(rank + 1) if rank <= top else 0.0
    return total / len(labels.reshape(-1, ROWS))


def test_same_bits_again_and_with_more_threads():
    one = fit()
    assert fit() == one
    assert fit(threads=2).models == one.models
    assert fit(replace(CONFIG, seed=4)).models != one.models


def test_a_model_has_not_learned_from_its_fold():
    config = replace(CONFIG, max_trees=1)  # so that the held-out folds decide nothing
    _, labels, _, folds = data()
    other = labels.reshape(-1, ROWS).copy()
    other[folds == 1] = np.roll(other[folds == 1], 1, axis=1)
    before, after = fit(config).models, fit(config, labels=other.reshape(-1)).models
    assert after[1] == before[1]
    assert after[0] != before[0] and after[2] != before[2] and after[3] != before[3]


def test_held_out_folds_decide_the_number_of_trees():
    fitted = fit()
    assert fitted.trees == int(np.argmax(fitted.ndcg)) + 1
    assert len(fitted.ndcg) == min(CONFIG.max_trees, fitted.trees + CONFIG.patience)
    assert [m.count("Tree=") for m in fitted.models] == [fitted.trees] * 4
    features, labels, sizes, folds = data()
    means = []
    for fold in range(3):
        held = np.repeat(folds, sizes) == fold
        booster = lightgbm.Booster(model_str=fitted.models[fold])
        means.append(ndcg(booster.predict(features[held]), labels[held], CONFIG.top))
    assert np.mean(means) == pytest.approx(max(fitted.ndcg), abs=2e-3)  # except for ties
    assert max(fitted.ndcg) > 0.8
    assert int(np.argmax(fitted.gains)) == 0


def test_where_there_is_nothing_to_learn_it_learns_little():
    features, labels, _, _ = data(signal=0.0)
    fitted = fit(features=features, labels=labels)
    chance = np.mean([1 / np.log2(r + 1) if r <= CONFIG.top else 0.0 for r in range(1, ROWS + 1)])
    assert abs(max(fitted.ndcg) - chance) < 0.06


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": np.zeros(3, dtype=np.int32)}, "1920 rows, but 3 labels"),
        ({"labels": np.full(GROUPS * ROWS, 2, dtype=np.int32)}, "labels must be in"),
        ({"group_sizes": np.full(GROUPS, ROWS - 1, dtype=np.int32)}, "groups of 1680 rows"),
        ({"folds": np.zeros(GROUPS, dtype=np.int32)}, "at least two folds"),
        ({"folds": (2 * (np.arange(GROUPS) % 2)).astype(np.int32)}, "no groups"),
        ({"features": np.full((GROUPS * ROWS, 4), np.inf, dtype=np.float32)}, "infinities"),
        ({"features": np.zeros((0, 4), dtype=np.float32)}, "nothing to fit"),
    ],
)
def test_refuses_what_contradicts_itself(changed, message):
    with pytest.raises(InvalidRequest, match=message):
        fit(**changed)
    with pytest.raises(InvalidRequest, match="at least"):
        fit(replace(CONFIG, leaves=1))


def test_says_what_to_do_without_openmp(monkeypatch):
    class Missing:
        def find_spec(self, name, *_):
            if name == "lightgbm":
                raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "lightgbm")
    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(FailedPrecondition, match="libgomp1"):
        fit()
