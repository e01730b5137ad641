"""RQ-VAE: autoencoder whose latent is the sum of one code vector per level (GR2 v1 stage 1; RQ-VAE 2203.01941;
TIGER 2305.05065).

    r_1 = encoder(x);  z_k = argmin_j ||r_k - e_j^k||;  r_{k+1} = r_k - e_{z_k}^k;  x' = decoder(sum_k e_{z_k}^k)
    loss = |x - x'|^2 + sum_k ( |sg r_k - e|^2  [codebooks learnt by gradient]  + beta |r_k - sg e|^2 )
           + diversity_weight * sum_k (1 - H(soft usage_k) / log C) + contrastive_weight * InfoNCE(quantised pairs)
with |.|^2 a mean over entries and sg "stop gradient". With EMA the codebooks follow running means instead of a
gradient.

Owns the training; does not decide who gets which ID (quantizer.py).
Shapes: B batch, D input, H latent, C codes, L levels, P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from gr2_worker.errors import FailedPrecondition
from gr2_worker.items.config import QuantizerConfig
from gr2_worker.items.rqkmeans import fit_residual_codebooks

EMA_EPSILON = 1e-5  # Laplace smoothing of cluster sizes
INIT_KMEANS_ITERATIONS = 20
RESET_ERROR_POOL = 4  # codes are re-seeded from the worst 4 x (dead codes) items

Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True)
class Quantised:
    codes_BL: Tensor  # int64
    latent_BH: Tensor  # sum of code vectors, no gradient to the encoder
    straight_through_BH: Tensor  # same value; gradient passes to the encoder's output unchanged
    residuals: list[Tensor]  # [L] of [B, H]: the input of each level
    distances: list[Tensor]  # [L] of [B, C]: squared distances to the level's codes
    codebook_loss: Tensor
    commitment_loss: Tensor


def squared_distances(points_BH: Tensor, codebook_CH: Tensor) -> Tensor:
    """||r - e_j||^2 as [B, C]."""
    return (
        points_BH.pow(2).sum(dim=1, keepdim=True)
        - 2.0 * points_BH @ codebook_CH.t()
        + codebook_CH.pow(2).sum(dim=1)[None, :]
    )


def residual_quantise(latent_BH: Tensor, codebooks: list[Tensor]) -> Quantised:
    """Residual quantisation, nearest code at every level. Losses are means over entries, summed over levels."""
    residual = latent_BH
    total = torch.zeros_like(latent_BH)
    codebook_loss = latent_BH.new_zeros(())
    commitment_loss = latent_BH.new_zeros(())
    codes: list[Tensor] = []
    residuals: list[Tensor] = []
    distances: list[Tensor] = []
    for codebook in codebooks:
        distances_BC = squared_distances(residual, codebook)
        index = distances_BC.detach().argmin(dim=1)
        chosen = codebook[index]
        codebook_loss = codebook_loss + F.mse_loss(chosen, residual.detach())
        commitment_loss = commitment_loss + F.mse_loss(residual, chosen.detach())
        codes.append(index)
        residuals.append(residual)
        distances.append(distances_BC)
        total = total + chosen.detach()
        residual = residual - chosen.detach()
    straight_through = latent_BH + (total - latent_BH).detach()
    return Quantised(
        torch.stack(codes, dim=1), total, straight_through, residuals, distances, codebook_loss, commitment_loss
    )


@torch.no_grad()
def ema_update(
    codebook_CH: Tensor, size_C: Tensor, sum_CH: Tensor, residual_BH: Tensor, codes_B: Tensor, decay: float
) -> None:
    """In place: N <- g N + (1-g) n,  M <- g M + (1-g) sum r,  e = M / smoothed N, with Laplace smoothing
    smoothed N_j = (N_j + eps) / (N + C eps) * N. An unused code keeps its direction;
    both of its running sums decay alike.
    """
    codes = codebook_CH.shape[0]
    counts = torch.bincount(codes_B, minlength=codes).to(size_C.dtype)
    sums = torch.zeros_like(sum_CH).index_add_(0, codes_B, residual_BH)
    size_C.mul_(decay).add_(counts, alpha=1.0 - decay)
    sum_CH.mul_(decay).add_(sums, alpha=1.0 - decay)
    total = size_C.sum()
    smoothed = (size_C + EMA_EPSILON) / (total + codes * EMA_EPSILON) * total
    codebook_CH.copy_(sum_CH / smoothed.unsqueeze(1))


def diversity_loss(distances_BC: Tensor) -> Tensor:
    """1 - H(mean soft assignment) / log C: 0 if all codes are used equally, 1 if only one is used.

    Soft assignment = softmax(-d / tau) with tau a tenth of the mean distance, so that it does not depend on scale.
    """
    temperature = 0.1 * distances_BC.detach().mean().clamp_min(1e-12)
    usage_C = torch.softmax(-distances_BC / temperature, dim=1).mean(dim=0)
    entropy = -(usage_C * usage_C.clamp_min(1e-12).log()).sum()
    return 1.0 - entropy / math.log(max(2, distances_BC.shape[1]))


def contrastive_loss(left_PH: Tensor, right_PH: Tensor, items_P2: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE on cosine similarity; negatives are the other pairs of the batch, except those that contain an
    item of this pair (an item is not its own negative).
    """
    left = F.normalize(left_PH, dim=1)
    right = F.normalize(right_PH, dim=1)
    logits = left @ right.t() / temperature
    items_l, items_r = items_P2[:, 0], items_P2[:, 1]
    same = (items_l[:, None] == items_l[None, :]) | (items_r[:, None] == items_r[None, :])
    same |= (items_l[:, None] == items_r[None, :]) | (items_r[:, None] == items_l[None, :])
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target))


class RqVae(nn.Module):
    """MLP encoder and mirrored decoder (ReLU between layers) around residual codebooks."""

    def __init__(self, input_dim: int, settings: QuantizerConfig) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(settings.seed)
        dims = [input_dim, *settings.hidden_dims, settings.latent_dim]
        self.encoder = _linears(dims, generator)
        self.decoder = _linears(dims[::-1], generator)
        learnt = settings.ema_decay == 0
        self.codebooks = nn.ParameterList(
            nn.Parameter(
                torch.randn(settings.codes, settings.latent_dim, generator=generator) * 0.1, requires_grad=learnt
            )
            for _ in range(settings.levels)
        )

    def encode(self, x_BD: Tensor) -> Tensor:
        return _mlp(self.encoder, x_BD)

    def decode(self, latent_BH: Tensor) -> Tensor:
        return _mlp(self.decoder, latent_BH)

    def codebook_list(self) -> list[Tensor]:
        return list(self.codebooks)


def train_rqvae(
    x_ND: NDArray[np.float32], settings: QuantizerConfig, pairs_P2: NDArray[np.int64] | None, on_progress: Progress
) -> tuple[RqVae, int]:
    """Trains on all rows for `epochs` passes; returns the model and how many dead codes were re-seeded.

    Runs on one thread, whatever the process uses, so that the result depends on the seed alone.
    """
    with _one_thread():
        return _train(torch.from_numpy(np.ascontiguousarray(x_ND)), settings, pairs_P2, on_progress)


def _train(
    x_ND: Tensor, settings: QuantizerConfig, pairs_P2: NDArray[np.int64] | None, on_progress: Progress
) -> tuple[RqVae, int]:
    num_items = len(x_ND)
    model = RqVae(x_ND.shape[1], settings)
    if settings.kmeans_init:
        with torch.no_grad():
            latents = model.encode(x_ND).numpy()
        initial = fit_residual_codebooks(
            latents, settings.levels, settings.codes, INIT_KMEANS_ITERATIONS, settings.seed
        )
        for codebook, centres in zip(model.codebook_list(), initial, strict=True):
            codebook.data.copy_(torch.from_numpy(centres))
    ema = settings.ema_decay > 0
    # One imaginary visit per code: a fresh code moves as fast as a used one.
    sizes = [torch.ones(settings.codes) for _ in range(settings.levels)]
    sums = [codebook.detach().clone() for codebook in model.codebook_list()]
    optimizer = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad], lr=settings.learning_rate, fused=True
    )
    generator = torch.Generator().manual_seed(settings.seed + 1)
    use_pairs = pairs_P2 is not None and len(pairs_P2) > 1 and settings.contrastive_weight > 0
    pairs = torch.from_numpy(np.ascontiguousarray(pairs_P2)) if use_pairs and pairs_P2 is not None else None
    num_resets = 0
    usage = torch.zeros(settings.levels, settings.codes)

    for epoch in range(1, settings.epochs + 1):
        epoch_usage = torch.zeros(settings.levels, settings.codes)
        totals: dict[str, float] = {}
        for rows in torch.split(torch.randperm(num_items, generator=generator), settings.batch_size):
            x = x_ND[rows]
            quantised = residual_quantise(model.encode(x), model.codebook_list())
            terms = {
                "reconstruction": F.mse_loss(model.decode(quantised.straight_through_BH), x),
                "commitment": quantised.commitment_loss,
            }
            loss = terms["reconstruction"] + settings.commitment * terms["commitment"]
            if not ema:
                terms["codebook"] = quantised.codebook_loss
                loss = loss + quantised.codebook_loss
            if settings.diversity_weight > 0:
                terms["diversity"] = torch.stack([diversity_loss(d) for d in quantised.distances]).sum()
                loss = loss + settings.diversity_weight * terms["diversity"]
            if pairs is not None:
                chosen = pairs[torch.randint(len(pairs), (max(2, len(rows) // 2),), generator=generator)]
                both = residual_quantise(model.encode(x_ND[chosen.t().reshape(-1)]), model.codebook_list())
                left, right = both.straight_through_BH.chunk(2)
                terms["contrastive"] = contrastive_loss(left, right, chosen, settings.contrastive_temperature)
                loss = loss + settings.contrastive_weight * terms["contrastive"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call, unused-ignore]
            optimizer.step()
            for level, codebook in enumerate(model.codebook_list()):
                codes_B = quantised.codes_BL[:, level]
                if ema:
                    residual = quantised.residuals[level].detach()
                    ema_update(codebook.data, sizes[level], sums[level], residual, codes_B, settings.ema_decay)
                epoch_usage[level] += torch.bincount(codes_B, minlength=settings.codes)
            for name, term in {"loss": loss, **terms}.items():
                totals[name] = totals.get(name, 0.0) + float(term.detach()) * len(rows) / num_items
        if not math.isfinite(totals["loss"]):
            raise FailedPrecondition(
                f"the quantizer diverged in epoch {epoch} (loss {totals['loss']}); lower learning_rate"
            )

        usage += epoch_usage
        every = settings.dead_code_reset_epochs
        # Not after the last epoch: a code re-seeded then would never be trained.
        if every > 0 and epoch % every == 0 and epoch < settings.epochs:
            num_resets += reset_dead_codes(model, x_ND, usage, sizes, sums, generator)
            usage.zero_()
        on_progress(epoch, settings.epochs, totals | _usage_metrics(epoch_usage))
    return model, num_resets


@torch.no_grad()
def reset_dead_codes(
    model: RqVae, x_ND: Tensor, usage_LC: Tensor, sizes: list[Tensor], sums: list[Tensor], generator: torch.Generator
) -> int:
    """Moves every code with usage 0 onto the residual of a badly reconstructed item (distinct items within a level).

    Items are drawn at random from the worst ones; in order, all would come from one bad cluster.
    """
    latent = model.encode(x_ND)
    quantised = residual_quantise(latent, model.codebook_list())
    error_N = (model.decode(quantised.latent_BH) - x_ND).pow(2).mean(dim=1)
    worst_first = error_N.argsort(descending=True, stable=True)
    num_resets = 0
    for level, codebook in enumerate(model.codebook_list()):
        dead = (usage_LC[level] == 0).nonzero().flatten()[: len(x_ND)]
        if len(dead) == 0:
            continue
        pool = worst_first[: max(len(dead), min(len(x_ND), RESET_ERROR_POOL * len(dead)))]
        chosen = pool[torch.randperm(len(pool), generator=generator)[: len(dead)]]
        seeds = quantised.residuals[level][chosen]
        codebook.data[dead] = seeds
        sizes[level][dead] = 1.0
        sums[level][dead] = seeds
        num_resets += len(dead)
    return num_resets


def _usage_metrics(usage_LC: Tensor) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for level, usage_C in enumerate(usage_LC):
        share = usage_C / usage_C.sum().clamp_min(1)
        metrics[f"usage_{level}"] = float((usage_C > 0).float().mean())
        metrics[f"perplexity_{level}"] = float(torch.exp(-(share * share.clamp_min(1e-12).log()).sum()))
    return metrics


def _linears(dims: list[int], generator: torch.Generator) -> nn.ModuleList:
    """LeCun-uniform weights and zero biases from `generator`;
    the process-wide generator is neither read nor advanced.
    """
    layers = nn.ModuleList()
    for fan_in, fan_out in pairwise(dims):
        layer = nn.Linear(fan_in, fan_out, device="meta").to_empty(device="cpu")
        bound = math.sqrt(3.0 / fan_in)
        nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
    return layers


def _mlp(layers: nn.ModuleList, x: Tensor) -> Tensor:
    for index, layer in enumerate(layers):
        x = layer(x)
        if index < len(layers) - 1:
            x = F.relu(x)
    return x


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
