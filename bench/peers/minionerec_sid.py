"""Semantic IDs the way MiniOneRec makes them, for `npm run bench -- sid`: an independent implementation of the recipe
that its repository publishes (github.com/AkaliKong/MiniOneRec at 81b4ba9, Apache-2.0: rq/rqvae.py and rqvae.sh,
rq/trainer.py, rq/models/, rq/generate_indices.py, rq/rqkmeans_constrained.py), run on CPU
and stopped at a budget of CPU seconds.

    rqvae:    MLP 2048-1024-512-256-128-64 to 32 dims and back, ReLU, Xavier-normal; codebooks k-means'd on the first
              batch, then learned by gradient; loss = mse + mean over levels of (codebook + .25 commitment); AdamW 1e-3,
              gradient norm 1, 50 epochs of warm-up, one batch of up to 20,480 items; the epoch of the lowest collision
              rate is kept (looked at every 50 epochs). Then its repair: items that share an ID are encoded again, group
              by group, with a Sinkhorn balanced last level (epsilon .003, 50 iterations), up to 20 rounds.
    kmeans:   RQ-KMeans with clusters of equal size (n_init 3, at most 100 iterations), and a running number as a
              further code where items collide. Needs the package k-means-constrained; without it the method is refused.

What differs here and why: 10,000 epochs of the published script take hours on a CPU, so the budget decides how many are
run and warm-up and the interval of the checks shrink to 1/200 of them, as 50 is of 10,000;
levels are an argument (theirs: 3 and 4).

Reads a matrix of stages/embed (8 bytes: rows, cols as uint32; then float32); prints one JSON object. Usage:
    python minionerec_sid.py rqvae EMBEDDINGS.f32 --levels 4 --codes 256 --budget 30 [--layers 256 128] [--seed 0]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import sys
import time
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

PUBLISHED_EPOCHS = 10_000
WARMUP_SHARE = 50 / PUBLISHED_EPOCHS
BATCH = 20_480
TIMED_EPOCHS = 4


def read_matrix(path: str) -> np.ndarray:
    with open(path, "rb") as file:
        rows, cols = np.frombuffer(file.read(8), dtype="<u4")
        return np.frombuffer(file.read(), dtype="<f4").reshape(int(rows), int(cols)).copy()


def mlp(dims: list[int]) -> nn.Sequential:
    parts: list[nn.Module] = []
    for i, (fan_in, fan_out) in enumerate(pairwise(dims)):
        layer = nn.Linear(fan_in, fan_out)
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
        parts += [layer] if i == len(dims) - 2 else [layer, nn.ReLU()]
    return nn.Sequential(*parts)


class Model(nn.Module):
    def __init__(self, dims: list[int], levels: int, codes: int) -> None:
        super().__init__()
        self.encoder = mlp(dims)
        self.decoder = mlp(dims[::-1])
        self.books = nn.ParameterList(nn.Parameter(torch.zeros(codes, dims[-1])) for _ in range(levels))

    @torch.no_grad()
    def place_codebooks(self, x: Tensor, seed: int) -> None:
        residual = self.encoder(x)
        for level, book in enumerate(self.books):
            means = KMeans(n_clusters=len(book), max_iter=100, random_state=seed + level).fit(residual.numpy())
            book.copy_(torch.from_numpy(means.cluster_centers_))
            residual = residual - book[distances(residual, book).argmin(1)]

    def loss(self, x: Tensor) -> Tensor:
        latent = self.encoder(x)
        residual, total = latent, torch.zeros_like(latent)
        quantisation = []
        for book in self.books:
            chosen = book[distances(residual, book).argmin(1)]
            quantisation.append(F.mse_loss(chosen, residual.detach()) + 0.25 * F.mse_loss(chosen.detach(), residual))
            passed = residual + (chosen - residual).detach()
            residual, total = residual - passed, total + passed
        return F.mse_loss(self.decoder(total), x) + torch.stack(quantisation).mean()

    @torch.no_grad()
    def codes(self, x: Tensor, balance_last: bool = False) -> np.ndarray:
        residual = self.encoder(x)
        out = []
        for level, book in enumerate(self.books):
            d = distances(residual, book)
            last = level == len(self.books) - 1
            index = sinkhorn(d).argmax(1) if last and balance_last else d.argmin(1)
            residual = residual - book[index]
            out.append(index)
        return torch.stack(out, dim=1).numpy()

    @torch.no_grad()
    def lost_variance(self, x: Tensor, codes: np.ndarray) -> float:
        latent = sum(book[torch.from_numpy(codes[:, k])] for k, book in enumerate(self.books))
        return float((self.decoder(latent) - x).pow(2).sum() / (x - x.mean(0)).pow(2).sum())


def distances(points: Tensor, book: Tensor) -> Tensor:
    return points.pow(2).sum(1, keepdim=True) + book.pow(2).sum(1) - 2 * points @ book.t()


def sinkhorn(d: Tensor, epsilon: float = 0.003, iterations: int = 50) -> Tensor:
    """Plan with equal mass a row and a column; distances are first brought to [-1, 1]."""
    middle = (d.max() + d.min()) / 2
    plan = torch.exp(-((d - middle) / (d.max() - middle + 1e-5)).double() / epsilon)
    plan = plan / plan.sum()
    rows, cols = plan.shape
    for _ in range(iterations):
        plan = plan / plan.sum(1, keepdim=True) / rows
        plan = plan / plan.sum(0, keepdim=True) / cols
    return plan


def unique_share(codes: np.ndarray) -> float:
    counts = Counter(map(tuple, codes.tolist()))
    return sum(n == 1 for n in counts.values()) / len(codes)


def collision_rate(codes: np.ndarray) -> float:
    return 1 - len({tuple(c) for c in codes.tolist()}) / len(codes)


def rqvae(x: np.ndarray, o: argparse.Namespace) -> dict[str, float]:
    torch.manual_seed(o.seed)
    data = torch.from_numpy(x)
    start = time.process_time()
    model = Model([x.shape[1], *o.layers, 32], o.levels, o.codes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0)
    model.place_codebooks(data[torch.randperm(len(data))[:BATCH]], o.seed)
    placed = time.process_time() - start
    epochs, seconds_an_epoch, begun = 0, 0.0, 0.0
    best: tuple[float, int, dict[str, Tensor]] | None = None
    interval = 1
    while epochs < o.epochs and (best is None or time.process_time() - start + seconds_an_epoch <= o.budget):
        for rows in torch.split(torch.randperm(len(data)), BATCH):
            warm = min(1.0, (epochs + 1) / interval) if epochs >= TIMED_EPOCHS else 0.02
            optimizer.param_groups[0]["lr"] = 1e-3 * warm
            optimizer.zero_grad()
            model.loss(data[rows]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        epochs += 1
        if epochs == 1:  # the first one also loads the optimizer's code
            begun = time.process_time()
        else:
            seconds_an_epoch = (time.process_time() - begun) / (epochs - 1)
        if epochs == TIMED_EPOCHS:  # now it is known how many epochs fit
            possible = min(float(o.epochs), max(1.0, (o.budget - placed) / seconds_an_epoch))
            interval = max(1, round(possible * WARMUP_SHARE))
        if epochs % interval == 0 or best is None:
            rate = collision_rate(model.codes(data))
            if best is None or rate < best[0]:
                best = (rate, epochs, {name: value.clone() for name, value in model.state_dict().items()})
    if best is not None:
        model.load_state_dict(best[2])
    fitted = time.process_time() - start
    codes = model.codes(data)
    nearest = codes.copy()
    encoded = time.process_time() - start - fitted
    rounds = 0
    while rounds < 20 and collision_rate(codes) > 0:
        groups = defaultdict(list)
        for row, ids in enumerate(map(tuple, codes.tolist())):
            groups[ids].append(row)
        for rows in groups.values():
            if len(rows) > 1:
                codes[rows] = model.codes(data[rows], balance_last=True)
        rounds += 1
    return {
        "epochs": epochs,
        "kept_epoch": best[1] if best is not None else 0,
        "fit_cpu_seconds": fitted,
        "encode_cpu_seconds": encoded,
        "repair_cpu_seconds": time.process_time() - start - fitted - encoded,
        "repair_rounds": rounds,
        "uniqueness_nearest": unique_share(nearest),
        "uniqueness": unique_share(codes),
        "lost_variance": model.lost_variance(data, nearest),
    }


def kmeans(x: np.ndarray, o: argparse.Namespace) -> dict[str, float]:
    from k_means_constrained import KMeansConstrained

    start = time.process_time()
    residual, levels = x.copy(), []
    for level in range(o.levels):
        least, most = max(1, len(x) // o.codes - 1), len(x) // o.codes + 1
        model = KMeansConstrained(
            o.codes, size_min=least, size_max=most, n_init=3, max_iter=100, tol=1e-7, random_state=o.seed + level
        )
        labels = model.fit_predict(residual)
        residual = residual - model.cluster_centers_[labels].astype(np.float32)
        levels.append(labels)
    codes = np.stack(levels, axis=1)
    return {
        "epochs": 0,
        "kept_epoch": 0,
        "fit_cpu_seconds": time.process_time() - start,
        "encode_cpu_seconds": 0.0,
        "repair_cpu_seconds": 0.0,
        "repair_rounds": 0,
        "uniqueness_nearest": unique_share(codes),
        "uniqueness": 1.0,  # by the further code
        "lost_variance": float((residual**2).sum() / ((x - x.mean(0)) ** 2).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("method", choices=["rqvae", "kmeans"])
    parser.add_argument("embeddings")
    parser.add_argument("--levels", type=int, default=4)
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--layers", type=int, nargs="+", default=[2048, 1024, 512, 256, 128, 64])
    parser.add_argument("--epochs", type=int, default=PUBLISHED_EPOCHS)
    parser.add_argument("--budget", type=float, default=30.0, help="CPU seconds of fitting")
    parser.add_argument("--seed", type=int, default=0)
    o = parser.parse_args()
    if o.method == "kmeans" and importlib.util.find_spec("k_means_constrained") is None:
        sys.exit("the package k-means-constrained is not installed")
    torch.set_num_threads(1)
    result = (rqvae if o.method == "rqvae" else kmeans)(read_matrix(o.embeddings), o)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    sys.stdout.write(json.dumps({"method": o.method, "peak_bytes": peak, **result}, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
