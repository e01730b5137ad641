"""Trains the tokenizer of models made from scratch: byte-level BPE, so that every text has tokens
and comes back unchanged.

Owns only the training. Semantic-ID codes and chat markers are tokens added after the BPE; text that merely spells one
would be read as that token, so item text is neutralised before it gets here (TypeScript: sid/sanitise).
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from gr2_worker.errors import InvalidRequest

MIN_VOCAB_SIZE = 256  # one token per byte


def train_bpe(texts: Sequence[str], vocab_size: int, special_tokens: Sequence[str]) -> bytes:
    """Returns a Hugging Face `tokenizer.json` (UTF-8).

    vocab_size bounds the BPE alone, and a small corpus may fill less of it; special_tokens follow with the next ids, in
    the given order. The same input gives the same bytes. Raises InvalidRequest for an impossible size or special token.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise InvalidRequest(f"vocab_size is {vocab_size}; byte-level BPE needs at least {MIN_VOCAB_SIZE}")
    if len(set(special_tokens)) != len(special_tokens):
        repeated = sorted({t for t in special_tokens if special_tokens.count(t) > 1})
        raise InvalidRequest(f"special tokens are listed twice: {repeated[:5]}")

    tokenizer = Tokenizer(models.BPE())
    # No normalizer and no added space: decode(encode(text)) == text for every text.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,  # a pair that occurs once teaches nothing
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer, length=len(texts))

    first_special = tokenizer.get_vocab_size()
    for token in special_tokens:
        if not token.strip():
            raise InvalidRequest("a special token must not be empty or blank")
        if tokenizer.token_to_id(token) is not None:
            raise InvalidRequest(
                f"the special token {token!r} is also an ordinary token; choose a spelling text does not have"
            )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special_tokens])
    for offset, token in enumerate(special_tokens):
        if tokenizer.token_to_id(token) != first_special + offset:
            raise RuntimeError(
                f"special token {token!r} has id {tokenizer.token_to_id(token)}, not {first_special + offset}"
            )
    return tokenizer.to_str(pretty=False).encode()
