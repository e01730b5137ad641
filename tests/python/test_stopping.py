"""Stop strings: a response ends with the token that completes one in its text, wherever tokens begin and end."""

from __future__ import annotations

import numpy as np
import pytest
from asked import sample_params
from conftest import VOCAB
from gr2_worker.generation.stopping import Stops
from gr2_worker.items.bpe import train_bpe
from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def bytewise():
    """One token a byte, and <end>."""
    return Tokenizer.from_str(train_bpe(["x"], 256, ["<end>"]).decode())


def first_end(tokenizer, text, strings, tokens=()):
    """The text of a row when it ends, or None."""
    ids = np.asarray([tokenizer.encode(text).ids], dtype=np.int32)
    stops = Stops(tuple(tokens), strings, tokenizer)
    for t in range(ids.shape[1]):
        if stops.ended(ids, t)[0]:
            return tokenizer.decode(ids[0, : t + 1].tolist(), skip_special_tokens=False)
    return None


@pytest.mark.parametrize(
    ("text", "strings", "ends_as"),
    [
        ("one two three", ("wo t",), "one two t"),  # four tokens, across words
        ("costs 5 € today", ("5 €",), "costs 5 €"),  # a character of three bytes: not before its last one
        ("costs 5 € today", ("$",), None),
        ("so it is <end> yes", ("<end>",), "so it is <end>"),  # a special token's own spelling
        ("so it is <end> yes", ("s <end> y",), "so it is <end> y"),
        ("a}}b", ("}}", "a}}"), "a}}"),
        ("]", ("]",), "]"),  # by the first token
    ],
)
def test_ends_where_the_string_is_complete(bytewise, text, strings, ends_as):
    assert first_end(bytewise, text, strings) == ends_as


def test_the_earlier_of_token_and_string_counts(bytewise):
    end = bytewise.token_to_id("<end>")
    assert first_end(bytewise, "ab<end>cd", ("cd",), (end,)) == "ab<end>"
    assert first_end(bytewise, "abcd<end>", ("cd",), (end,)) == "abcd"


@pytest.mark.parametrize("constrained", [False, True])
def test_sampling_ends_where_reading_everything_would(engine, constrained):
    """Against the same responses without stop strings, cut where their text first contains one."""
    from test_sampler import draw, make_constraint, make_prompts

    prompts = make_prompts(3, 6)
    constraint = make_constraint(prompts, trigger=(8,), free=(0, 3)) if constrained else None
    strings = ("1 w2", "w7")  # the first spans two tokens and is part of many: "w31 w25"
    common = {"temperature": 1.0, "seed": 4, "constraint": constraint}
    whole = draw(engine, sample_params(prompts, 4, 30, **common))
    drawn = draw(engine, sample_params(prompts, 4, 30, stop_strings=strings, **common))
    tokenizer = engine.model("").lm.tokenizer
    assert tokenizer.get_vocab_size() == VOCAB
    cut = 0
    for key, item in whole.items():
        texts = [tokenizer.decode(item.tokens[: n + 1].tolist()) for n in range(len(item.tokens))]
        ends = next((n + 1 for n, text in enumerate(texts) if any(s in text for s in strings)), None)
        cut += ends is not None and ends < len(item.tokens)
        np.testing.assert_array_equal(drawn[key].tokens, item.tokens[:ends])
        np.testing.assert_allclose(drawn[key].logprobs, item.logprobs[:ends], atol=1e-5)
        assert drawn[key].stopped == (item.stopped or ends is not None)
    assert 5 <= cut < len(whole)
