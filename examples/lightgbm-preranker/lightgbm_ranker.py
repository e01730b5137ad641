"""LambdaMART over all items as a pre-ranker: popularity, transitions, neighbours and shared categories as features."""

from itertools import pairwise

import lightgbm
import numpy as np
from gr2_worker.plugins import Training

RECENT = 3


def fit(training: Training, trees: int = 100, negatives: int = 20) -> "Ranker":
    return Ranker(training, trees, negatives)


class Ranker:
    def __init__(self, training: Training, trees: int, negatives: int) -> None:
        n = training.num_items
        self.n = n
        self.popularity = np.zeros(n)
        self.next = np.zeros((n, n))
        self.together = np.zeros((n, n))
        for sequence in training.sequences:
            np.add.at(self.popularity, sequence, 1)
            for a, b in pairwise(sequence):
                self.next[a, b] += 1
            for a in sequence:
                self.together[a, sequence] += 1
        names = sorted({c for item in training.items for c in item.categories})
        kinds = np.zeros((n, max(1, len(names))))
        for row, item in enumerate(training.items):
            for category in item.categories:
                kinds[row, names.index(category)] = 1
        self.alike = kinds @ kinds.T
        self.model = self._train(training, trees, negatives)

    def _features(self, history: list[int]) -> np.ndarray:
        """A row an item."""
        last = history[-RECENT:][::-1]
        columns = [self.popularity]
        for k in range(RECENT):
            seen = last[k] if k < len(last) else None
            tables = (self.next, self.together, self.alike)
            columns += [np.zeros(self.n) if seen is None else table[seen] for table in tables]
        return np.stack(columns, axis=1)

    def _train(self, training: Training, trees: int, negatives: int) -> lightgbm.Booster:
        rng = np.random.default_rng(training.seed)
        rows, labels, groups = [], [], []
        for sequence in training.sequences:
            for position in range(max(1, len(sequence) // 2), len(sequence)):
                history, target = sequence[:position], sequence[position]
                others = np.setdiff1d(np.arange(self.n), sequence[: position + 1])
                drawn = rng.choice(others, min(negatives, len(others)), replace=False)
                rows.append(self._features(history)[[target, *drawn]])
                labels += [1] + [0] * len(drawn)
                groups.append(1 + len(drawn))
        data = lightgbm.Dataset(np.concatenate(rows), np.array(labels), group=groups)
        settings = {
            "objective": "lambdarank",
            "num_leaves": 15,
            "min_data_in_leaf": 10,
            "learning_rate": 0.1,
            "seed": training.seed,
            "num_threads": 1,
            "deterministic": True,
            "verbose": -1,
        }
        return lightgbm.train(settings, data, num_boost_round=trees)

    def rank(self, histories: list[list[int]], n: int, users: list[int]) -> list[tuple[list[int], list[float]]]:
        """The best n items for every history, none of which it holds, with falling scores."""
        scores = self.model.predict(np.concatenate([self._features(h) for h in histories])).reshape(
            len(histories), self.n
        )
        out = []
        for history, own in zip(histories, scores, strict=True):
            own[history] = -np.inf
            best = np.argsort(-own, kind="stable")[: min(n, self.n - len(set(history)))]
            out.append((best.tolist(), own[best].tolist()))
        return out
