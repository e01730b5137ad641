"""Gradient-boosted trees that order rows within groups (LambdaMART: Burges 2010; LightGBM's `lambdarank`).

For each fold of groups, one booster is fitted without it, all of them in step, tree by tree. Their mean NDCG on the
left-out folds decides how many trees every booster keeps, so that no group judges a model trained on it. A last booster
is fitted on all groups. Deterministic for given data, configuration and seed, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gr2_worker.errors import FailedPrecondition, InvalidRequest, first_line

# (trees so far, maximum, NDCG on the left-out folds)
OnProgress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class TreesConfig:
    max_trees: int
    learning_rate: float
    leaves: int
    min_leaf_rows: int
    l2: float
    feature_share: float
    max_bins: int
    top: int
    patience: int
    seed: int


@dataclass(frozen=True)
class FittedTrees:
    models: list[str]
    gains: list[float]
    trees: int
    ndcg: list[float]


def load_lightgbm() -> Any:
    """Imports LightGBM, which needs the system's OpenMP library; its wheel does not include it."""
    try:
        import lightgbm
    except ImportError as error:
        raise FailedPrecondition(f"LightGBM is not installed ({first_line(error)}): run `make setup`") from error
    except OSError as error:
        raise FailedPrecondition(
            f"LightGBM cannot be loaded ({first_line(error)}): install the system package libgomp1, "
            "or set evidence.model: listwise, which needs no trees"
        ) from error
    return lightgbm


def fit_trees(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    gains: list[float],
    group_sizes: npt.NDArray[np.int32],
    folds: npt.NDArray[np.int32],
    config: TreesConfig,
    threads: int,
    on_progress: OnProgress,
) -> FittedTrees:
    """One model without each fold, then one on all groups, each of the same number of trees."""
    _check(features, labels, gains, group_sizes, folds, config)
    lgb = load_lightgbm()
    params = _params(config, gains, threads)
    # Bins may come from all rows: they use no labels.
    every = lgb.Dataset(features, labels, group=group_sizes, params=params, free_raw_data=False).construct()
    fold_of_row = np.repeat(folds, group_sizes)
    boosters = []
    for fold in range(int(folds.max()) + 1):
        train = every.subset(np.flatnonzero(fold_of_row != fold).tolist())
        held = every.subset(np.flatnonzero(fold_of_row == fold).tolist())
        booster = lgb.Booster(params, train)
        booster.add_valid(held, "held out")
        boosters.append(booster)
    ndcg: list[float] = []
    best = 0
    for tree in range(config.max_trees):
        for booster in boosters:
            booster.update()
            on_progress(tree, config.max_trees, ndcg[-1] if ndcg else 0.0)
        ndcg.append(float(np.mean([booster.eval_valid()[0][2] for booster in boosters])))
        if ndcg[-1] > ndcg[best]:
            best = tree
        if tree - best >= config.patience:
            break
    trees = best + 1
    final = lgb.Booster(params, every)
    for tree in range(trees):
        final.update()
        on_progress(tree, trees, ndcg[best])
    return FittedTrees(
        models=[_text(b, trees) for b in [*boosters, final]],
        gains=[float(g) for g in final.feature_importance("gain")],
        trees=trees,
        ndcg=ndcg,
    )


def _text(booster: Any, trees: int) -> str:
    """The model's text without the settings at its end, which include the number of threads
    and do not affect predictions.
    """
    return str(booster.model_to_string(num_iteration=trees)).split("\nparameters:")[0] + "\n"


def _params(config: TreesConfig, gains: list[float], threads: int) -> dict[str, Any]:
    return {
        "objective": "lambdarank",
        "lambdarank_truncation_level": config.top,
        "label_gain": gains,
        "metric": "ndcg",
        "eval_at": [config.top],
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_leaf_rows,
        "min_sum_hessian_in_leaf": 1e-3,
        "lambda_l2": config.l2,
        "feature_fraction": config.feature_share,
        "max_bin": config.max_bins,
        "feature_pre_filter": False,
        "seed": config.seed % 2**31,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": threads,
        "verbosity": -1,
    }


def _check(
    features: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int32],
    gains: list[float],
    group_sizes: npt.NDArray[np.int32],
    folds: npt.NDArray[np.int32],
    config: TreesConfig,
) -> None:
    rows, cols = features.shape
    if rows == 0 or cols == 0:
        raise InvalidRequest(f"features are {rows} x {cols}: there is nothing to fit")
    if len(labels) != rows or len(group_sizes) == 0 or group_sizes.min() < 1 or int(group_sizes.sum()) != rows:
        raise InvalidRequest(
            f"{rows} rows, but {len(labels)} labels and {len(group_sizes)} groups of {int(group_sizes.sum())} rows"
        )
    if labels.min() < 0 or labels.max() >= len(gains):
        raise InvalidRequest(f"labels must be in [0, {len(gains)}), one for each of the gains")
    if len(folds) != len(group_sizes) or folds.min() < 0 or folds.max() < 1:
        raise InvalidRequest("every group needs a fold, and there must be at least two folds")
    if len(np.unique(folds)) != folds.max() + 1:
        raise InvalidRequest(f"a fold of 0 ... {int(folds.max())} has no groups")
    if np.isinf(features).any():
        raise InvalidRequest("features contain infinities")
    if config.max_trees < 1 or config.leaves < 2 or config.top < 1 or config.patience < 1:
        raise InvalidRequest("max_trees, top and patience must be at least 1, and leaves at least 2")
