"""The tokenizer of from-scratch models: round trip, ids of special tokens, determinism."""

import subprocess
import sys

import pytest
from gr2_worker.errors import InvalidRequest
from gr2_worker.items.bpe import train_bpe
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

TEXTS = ["Toy Story (1995). Animation", "GoldenEye (1995). Action", "Café crème brûlée, 8.4 oz", "今日は世界"] * 20
SPECIAL = ["<|pad|>", "<|eos|>", "<|sid_begin|>", "<s_a_0>", "<s_a_1>", "<s_b_0>"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_str(train_bpe(TEXTS, 400, SPECIAL).decode())


def test_special_tokens_follow_the_bpe_in_the_given_order(tokenizer: Tokenizer) -> None:
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    assert [tokenizer.token_to_id(t) for t in SPECIAL] == list(range(size - len(SPECIAL), size))
    assert tokenizer.get_vocab_size(with_added_tokens=False) <= 400
    for token in SPECIAL:
        assert tokenizer.encode(token).tokens == [token]
        assert tokenizer.encode(f"a{token}b").tokens[1] == token
        assert not tokenizer.get_added_tokens_decoder()[tokenizer.token_to_id(token)].normalized


def test_merges_are_learnt(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("Toy Story (1995)").ids) < len("Toy Story (1995)")


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_same_bytes_in_another_process() -> None:
    trained = f"train_bpe({TEXTS!r}, 400, {SPECIAL!r})"
    code = f"import sys; from gr2_worker.items.bpe import train_bpe; sys.stdout.buffer.write({trained})"
    here = train_bpe(TEXTS, 400, SPECIAL)
    env = {"PYTHONPATH": ":".join(sys.path), "RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env).stdout
    assert here == there


def test_no_texts_still_give_every_byte() -> None:
    tokenizer = Tokenizer.from_str(train_bpe([], 256, ["<|eos|>"]).decode())
    assert tokenizer.token_to_id("<|eos|>") == 256
    assert tokenizer.decode(tokenizer.encode("naïve 🙂\n").ids) == "naïve 🙂\n"


@pytest.mark.parametrize(
    ("size", "special", "message"),
    [(255, [], "at least 256"), (300, ["<x>", "<x>"], "twice"), (300, [" "], "blank"), (300, ["a"], "ordinary token")],
)
def test_impossible_requests_are_refused(size: int, special: list[str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        train_bpe(TEXTS, size, special)
