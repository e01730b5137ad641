"""RQ-VAE against plain references: quantisation in NumPy loops, EMA by its formula, gradients by hand."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from asked import quantizer_config
from gr2_worker.errors import FailedPrecondition
from gr2_worker.items.rqkmeans import fit_residual_codebooks, kmeans_codebook, nearest_codes, principal_components
from gr2_worker.items.rqvae import (
    EMA_EPSILON,
    RqVae,
    contrastive_loss,
    diversity_loss,
    ema_update,
    reset_dead_codes,
    residual_quantise,
    squared_distances,
    train_rqvae,
)
from torch import Tensor

SMALL = quantizer_config(levels=2, codes=8, latent_dim=4, hidden_dims=(16,), epochs=6, batch_size=32, seed=3)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def items(n: int = 200, d: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((10, d)) * 2
    return (centres[rng.integers(10, size=n)] + rng.standard_normal((n, d)) * 0.3).astype(np.float32)


def test_codes_and_residuals_equal_plain_numpy() -> None:
    latent = random(40, 6)
    books = [random(9, 6, seed=s) for s in (1, 2, 3)]
    got = residual_quantise(latent, books)
    for b in range(40):
        residual = latent[b].numpy().astype(np.float64)
        total = np.zeros(6)
        for level, book in enumerate(books):
            np.testing.assert_allclose(got.residuals[level][b].numpy(), residual, atol=1e-5)
            distances = [float(((residual - e) ** 2).sum()) for e in book.numpy().astype(np.float64)]
            code = int(np.argmin(distances))
            assert int(got.codes_BL[b, level]) == code
            assert nearest_codes(residual[None], book.numpy().astype(np.float64))[0] == code
            residual = residual - book[code].numpy()
            total += book[code].numpy()
        np.testing.assert_allclose(got.latent_BH[b].numpy(), total, atol=1e-5)


def test_losses_equal_their_definition() -> None:
    latent = random(7, 5)
    books = [random(4, 5, seed=s) for s in (1, 2)]
    got = residual_quantise(latent, books)
    expected = sum(float(((got.residuals[k] - books[k][got.codes_BL[:, k]]) ** 2).mean()) for k in range(2))
    assert float(got.codebook_loss) == pytest.approx(expected, rel=1e-5)
    assert float(got.commitment_loss) == pytest.approx(expected, rel=1e-5)


def test_straight_through_passes_the_decoders_gradient_unchanged() -> None:
    latent = random(5, 4).requires_grad_()
    books = [random(6, 4, seed=s).requires_grad_() for s in (1, 2)]
    got = residual_quantise(latent, books)
    torch.testing.assert_close(got.straight_through_BH, got.latent_BH)
    weight = random(5, 4, seed=9)
    # d/dz of sum(w * q^2) through the identity is 2 w q, evaluated at the quantised value.
    (weight * got.straight_through_BH**2).sum().backward()
    torch.testing.assert_close(latent.grad, 2 * weight * got.latent_BH)
    assert all(book.grad is None for book in books)


def test_commitment_moves_the_encoder_and_codebook_loss_the_codes_only() -> None:
    latent = random(5, 4).requires_grad_()
    books = [random(6, 4, seed=s).requires_grad_() for s in (1, 2)]
    got = residual_quantise(latent, books)
    got.commitment_loss.backward(retain_graph=True)
    assert all(book.grad is None for book in books)
    # Every level's residual is z minus constants: d/dz = sum_k 2 (r_k - e_k) / entries.
    by_hand = sum(2 * (got.residuals[k] - books[k][got.codes_BL[:, k]]) / latent.numel() for k in range(2))
    torch.testing.assert_close(latent.grad, by_hand.detach())
    latent.grad = None
    got.codebook_loss.backward()
    assert latent.grad is None
    for k, book in enumerate(books):
        expected = torch.zeros_like(book)
        for b, code in enumerate(got.codes_BL[:, k].tolist()):
            expected[code] += (2 * (book[code] - got.residuals[k][b]) / latent.numel()).detach()
        torch.testing.assert_close(book.grad, expected)


def test_the_whole_gradient_equals_plain_numpy() -> None:
    # Linear encoder and decoder: z = W1 x + b1, y = W2 q + b2, and through the straight-through step dz = dq.
    settings = dataclasses.replace(SMALL, hidden_dims=(), commitment=0.25)
    model, x = RqVae(12, settings), torch.from_numpy(items(20))
    got = residual_quantise(model.encode(x), model.codebook_list())
    y = model.decode(got.straight_through_BH)
    (torch.nn.functional.mse_loss(y, x) + settings.commitment * got.commitment_loss).backward()

    (enc,), (dec,) = model.encoder, model.decoder
    w1, b1, w2, b2 = (p.detach().numpy().astype(np.float64) for p in (enc.weight, enc.bias, dec.weight, dec.bias))
    rows = x.numpy().astype(np.float64)
    residual = rows @ w1.T + b1
    q, dz = np.zeros_like(residual), np.zeros_like(residual)
    for book in (b.detach().numpy().astype(np.float64) for b in model.codebook_list()):
        nearest = book[((residual[:, None] - book[None]) ** 2).sum(axis=2).argmin(axis=1)]
        dz += settings.commitment * 2 * (residual - nearest) / residual.size
        q, residual = q + nearest, residual - nearest
    dy = 2 * (q @ w2.T + b2 - rows) / rows.size
    dz += dy @ w2
    for parameter, expected in (
        (enc.weight, dz.T @ rows),
        (enc.bias, dz.sum(axis=0)),
        (dec.weight, dy.T @ q),
        (dec.bias, dy.sum(axis=0)),
    ):
        np.testing.assert_allclose(parameter.grad.numpy(), expected, atol=1e-5)


def test_ema_update_equals_its_formula() -> None:
    decay, num_codes = 0.9, 5
    book, size, total = random(num_codes, 3), torch.rand(num_codes), random(num_codes, 3, seed=1)
    residual, codes = random(8, 3, seed=2), torch.tensor([0, 0, 1, 1, 1, 3, 3, 0])
    n, m = size.numpy().astype(np.float64).copy(), total.numpy().astype(np.float64).copy()
    for j in range(num_codes):
        mine = residual[codes == j].numpy()
        n[j] = decay * n[j] + (1 - decay) * len(mine)
        m[j] = decay * m[j] + (1 - decay) * mine.sum(axis=0)
    smoothed = (n + EMA_EPSILON) / (n.sum() + num_codes * EMA_EPSILON) * n.sum()
    ema_update(book, size, total, residual, codes, decay)
    np.testing.assert_allclose(size.numpy(), n, rtol=1e-5)
    np.testing.assert_allclose(book.numpy(), m / smoothed[:, None], rtol=1e-4)


def test_ema_converges_to_the_mean_of_what_is_assigned() -> None:
    book, size = torch.zeros(1, 2), torch.ones(1)
    total = torch.zeros(1, 2)
    residual = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    for _ in range(500):
        ema_update(book, size, total, residual, torch.tensor([0, 0]), 0.95)
    torch.testing.assert_close(book, torch.tensor([[2.0, 3.0]]), rtol=1e-3, atol=1e-3)


def test_diversity_equals_plain_numpy() -> None:
    distances = random(6, 5).square()
    d = distances.numpy().astype(np.float64)
    soft = np.exp(-d / (0.1 * d.mean()))
    usage = (soft / soft.sum(axis=1, keepdims=True)).mean(axis=0)
    expected = 1 + (usage * np.log(usage)).sum() / math.log(5)
    assert float(diversity_loss(distances)) == pytest.approx(expected, rel=1e-4)


def test_diversity_is_zero_for_uniform_usage_and_one_for_collapse() -> None:
    book = torch.eye(4) * 10
    assert float(diversity_loss(squared_distances(book.clone(), book))) == pytest.approx(0.0, abs=1e-4)
    assert float(diversity_loss(squared_distances(book[:1].repeat(4, 1), book))) == pytest.approx(1.0, abs=1e-3)
    points = (book[:1] + 0.1 * random(4, 4)).requires_grad_()
    diversity_loss(squared_distances(points, book)).backward()
    assert points.grad is not None and torch.isfinite(points.grad).all()


def test_contrastive_loss_equals_plain_numpy_and_masks_the_same_item() -> None:
    left, right, temperature = random(4, 3), random(4, 3, seed=1), 0.5
    pairs = torch.tensor([[0, 1], [2, 3], [0, 4], [5, 3]])  # rows 0 and 2 share item 0, rows 1 and 3 share item 3
    a, b = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (left, right))
    logits = a @ b.T / temperature
    masked = {(0, 2), (2, 0), (1, 3), (3, 1)}
    expected = 0.0
    for i in range(4):
        keep = [j for j in range(4) if (i, j) not in masked]
        expected += math.log(sum(math.exp(logits[i, j]) for j in keep)) - logits[i, i]
        expected += math.log(sum(math.exp(logits[j, i]) for j in keep)) - logits[i, i]
    assert float(contrastive_loss(left, right, pairs, temperature)) == pytest.approx(expected / 8, rel=1e-5)


def test_dead_codes_move_onto_badly_reconstructed_items_and_used_ones_stay() -> None:
    x = torch.from_numpy(items())
    model = RqVae(12, SMALL)
    with torch.no_grad():
        quantised = residual_quantise(model.encode(x), model.codebook_list())
        error = (model.decode(quantised.latent_BH) - x).pow(2).mean(dim=1)
    usage = torch.ones(2, 8)
    usage[0, [2, 5]] = 0
    before = [book.detach().clone() for book in model.codebook_list()]
    sizes, sums = [torch.full((8,), 7.0) for _ in range(2)], [torch.zeros(8, 4) for _ in range(2)]
    assert reset_dead_codes(model, x, usage, sizes, sums, torch.Generator().manual_seed(0)) == 2
    worst = set(error.argsort(descending=True)[:8].tolist())
    moved_to = set()
    for code in (2, 5):
        gap = (quantised.residuals[0] - model.codebook_list()[0][code]).abs().sum(dim=1)
        assert float(gap.min()) == 0.0
        moved_to.add(int(gap.argmin()))
        assert float(sizes[0][code]) == 1.0
    assert len(moved_to) == 2 and moved_to <= worst
    kept = [0, 1, 3, 4, 6, 7]
    torch.testing.assert_close(model.codebook_list()[0][kept].detach(), before[0][kept])
    torch.testing.assert_close(model.codebook_list()[1].detach(), before[1])


def test_kmeans_init_starts_every_level_on_the_residuals() -> None:
    x = items()
    settings = dataclasses.replace(SMALL, epochs=1, learning_rate=1e-12, ema_decay=0.0, dead_code_reset_epochs=0)
    model, _ = train_rqvae(x, settings, None, lambda *_: None)
    with torch.no_grad():
        latents = RqVae(12, settings).encode(torch.from_numpy(x)).numpy()
    expected = fit_residual_codebooks(latents, 2, 8, 20, settings.seed)
    for book, centres in zip(model.codebook_list(), expected, strict=True):
        np.testing.assert_allclose(book.detach().numpy(), centres, atol=1e-6)


def test_residual_kmeans_reduces_the_error_level_by_level() -> None:
    errors: list[float] = []
    fit_residual_codebooks(items(), 3, 8, 20, 0, lambda _level, residual: errors.append(float((residual**2).mean())))
    assert float((items() ** 2).mean()) > errors[0] > errors[1] > errors[2]


def test_principal_components_are_the_best_linear_code_of_their_width() -> None:
    x = items(60, 12)
    ((weight, bias),), ((back, mean),) = principal_components(x, 3)
    centred = x.astype(np.float64) - x.mean(axis=0)
    u, s, v = np.linalg.svd(centred, full_matrices=False)
    best = (u[:, :3] * s[:3]) @ v[:3]
    latent = x @ weight.T + bias
    np.testing.assert_allclose(latent @ back.T + mean - x.mean(axis=0), best, atol=1e-5)
    np.testing.assert_allclose(latent.mean(axis=0), 0, atol=1e-5)
    for width in (0, 12, 99):  # all dims as they are
        assert principal_components(x, width) == ([], [])
    assert principal_components(x[:3], 3) == ([], [])


def test_fewer_points_than_codes_give_every_point_its_own_centre() -> None:
    points = np.repeat(np.eye(3), 2, axis=0)
    book = kmeans_codebook(points, 8, 10, 0)
    assert book.shape == (8, 3)
    assert len({tuple(row) for row in book}) == 8
    np.testing.assert_array_equal(book[nearest_codes(points, book)], points)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ema_decay": 0.0},
        {"kmeans_init": False},
        {"diversity_weight": 0.5},
        {"dead_code_reset_epochs": 2},
        {"contrastive_weight": 0.3},
        {"hidden_dims": ()},
    ],
)
def test_every_switch_trains_and_the_seed_decides_all(change: dict[str, object]) -> None:
    settings = dataclasses.replace(SMALL, **change)
    pairs = np.array([[i, i + 1] for i in range(0, 100, 2)])
    seen: list[dict[str, float]] = []
    model, _ = train_rqvae(items(), settings, pairs, lambda _e, _n, metrics: seen.append(metrics))
    torch.manual_seed(99)  # the process-wide generator must not matter
    torch.set_num_threads(2)
    again, _ = train_rqvae(items(), settings, pairs, lambda *_: None)
    assert torch.get_num_threads() == 2
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert seen[-1]["reconstruction"] < seen[0]["reconstruction"]
    assert ("contrastive" in seen[0]) == ("contrastive_weight" in change)
    start = RqVae(12, settings)
    for (name, a), b in zip(model.named_parameters(), start.parameters(), strict=True):
        assert not torch.equal(a, b), f"{name} did not move"


def test_contrastive_loss_brings_pairs_together() -> None:
    x = items(120)
    pairs = np.array([[i, 60 + i] for i in range(60)])

    def similarity(weight: float) -> float:
        settings = dataclasses.replace(SMALL, epochs=40, contrastive_weight=weight)
        model, _ = train_rqvae(x, settings, pairs, lambda *_: None)
        with torch.no_grad():
            z = torch.nn.functional.normalize(model.encode(torch.from_numpy(x)), dim=1)
        return float((z[:60] * z[60:]).sum(dim=1).mean())

    assert similarity(1.0) > similarity(0.0) + 0.1


def test_divergence_is_an_error_not_a_result() -> None:
    settings = dataclasses.replace(SMALL, learning_rate=1e25, epochs=20, ema_decay=0.0)
    with pytest.raises(FailedPrecondition, match="diverged"):
        train_rqvae(items(), settings, None, lambda *_: None)
