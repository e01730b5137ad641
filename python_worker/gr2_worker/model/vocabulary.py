"""The vocabulary of a language model: reading a tokenizer, adding tokens to it, and the rows of new tokens.

A new row starts at the mean of the trained ones plus a little noise; if the token has a position in another space
(`place`), a projection of it is added, so that tokens of similar items start out similar.
"""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from gr2_worker.errors import InvalidRequest, first_line
from gr2_worker.types import Float32s

# A token placed by a vector is moved from its fresh row by this many standard deviations of the embedding. In a trained
# model longer rows would draw probability from every other token, in every context (docs/LOG.md).
PLACEMENT_FROM_SCRATCH = 2.0
PLACEMENT_PRETRAINED = 0.5
# New rows = mean of the old ones + this share of their standard deviation as noise: known territory, yet distinct.
NEW_ROW_NOISE = 0.1


def parse(tokenizer_json: bytes) -> Tokenizer:
    """A tokenizer that neither pads nor truncates. Raises InvalidRequest."""
    if not tokenizer_json:
        raise InvalidRequest("tokenizer_json is empty")
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:  # tokenizers raises bare Exception
        raise InvalidRequest(f"tokenizer_json cannot be read: {first_line(error)}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def add(tokenizer: Tokenizer, tokens: tuple[str, ...]) -> None:
    """Adds the unknown ones, in order, as tokens that are never split."""
    if len(set(tokens)) != len(tokens):
        raise InvalidRequest("added_tokens has a token twice")
    if any(not token for token in tokens):
        raise InvalidRequest("added_tokens has an empty token")
    new = [t for t in tokens if tokenizer.token_to_id(t) is None]
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in new])


def extend(model: Any, tokenizer: Tokenizer, tokens: tuple[str, ...], multiple: int, seed: int | None) -> None:
    """Adds tokens to tokenizer and model, tied or not. seed None: the model's own initialisation has drawn all rows."""
    known_rows, old_rows = rows_needed(tokenizer), int(model.get_input_embeddings().num_embeddings)
    add(tokenizer, tokens)
    rows = padded(max(rows_needed(tokenizer), old_rows), multiple)
    if rows != old_rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    # Rows after the tokenizer's last id may exist (padding of the vocabulary) but were never trained: if a token is
    # added they are new as well. Otherwise the model stays unchanged.
    first_new, trained = known_rows, min(known_rows, old_rows)
    if seed is None or rows <= first_new or (rows == old_rows and rows_needed(tokenizer) == known_rows):
        return
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in tables(model):
            old = weight[:trained].float()
            noise = torch.randn((rows - first_new, weight.shape[1]), generator=generator)
            fresh = old.mean(dim=0) + NEW_ROW_NOISE * old.std(dim=0, unbiased=False) * noise.to(weight.device)
            weight[first_new:] = fresh.to(weight.dtype)


def place(model: Any, ids: list[int], vectors_AD: Float32s, seed: int, deviations: float) -> None:
    """Adds to every id's row a random projection of its token's position in another space; nothing for zeros."""
    vectors = torch.from_numpy(vectors_AD.astype("float32"))
    weights = tables(model)
    generator = torch.Generator().manual_seed(seed)
    projected = vectors @ torch.randn((vectors.shape[1], weights[0].shape[1]), generator=generator)
    placed = projected.abs().sum(dim=1) > 0
    if not bool(placed.any()):
        return
    projected /= projected[placed].square().mean().sqrt()
    with torch.no_grad():
        for weight in weights:
            length = deviations * weight.float().std()
            weight[torch.tensor(ids)] += (length * projected.to(weight.device)).to(weight.dtype)


def tables(model: Any) -> list[Tensor]:
    """The embedding's weight and, if it is not the same, the output layer's."""
    weights = [model.get_input_embeddings().weight]
    if model.get_output_embeddings().weight is not weights[0]:
        weights.append(model.get_output_embeddings().weight)
    return weights


def rows_needed(tokenizer: Tokenizer) -> int:
    """Highest token id + 1 (ids may have holes)."""
    return 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())


def require_token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of an added token."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise InvalidRequest(f"the tokenizer did not accept the added token {token!r}")
    return int(found)


def padded(rows: int, multiple: int) -> int:
    """`rows` rounded up to a multiple; 0 = as it is."""
    return rows if multiple <= 0 else -(-rows // multiple) * multiple
