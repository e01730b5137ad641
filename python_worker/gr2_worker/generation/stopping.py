"""When a response ends by itself: after a stop token, or once its text contains a stop string."""

from __future__ import annotations

import numpy as np
from tokenizers import Tokenizer

from gr2_worker.types import Bools, Int32s


class Stops:
    """Checks rows token by token: every row must be asked about every token it gets."""

    def __init__(self, tokens: tuple[int, ...], strings: tuple[str, ...], tokenizer: Tokenizer) -> None:
        self._tokens = np.asarray(tokens, dtype=np.int32)
        self._strings, self._tokenizer = strings, tokenizer
        # A token has at least one byte, so a string that the latest token completes is within as many tokens as it has
        # bytes. One more keeps decoders from dropping the space before it, as some do at the start of a text.
        self._window = 1 + max((len(s.encode()) for s in strings), default=0)

    def ended(self, tokens_RT: Int32s, t: int) -> Bools:
        """Rows [R] that end with token t (0-based) of tokens_RT [R, T]; later columns are not read."""
        ended: Bools = np.isin(tokens_RT[:, t], self._tokens)
        if self._strings:
            latest = tokens_RT[:, max(0, t + 1 - self._window) : t + 1]
            texts = self._tokenizer.decode_batch(latest.tolist(), skip_special_tokens=False)
            ended |= np.asarray([any(s in text for s in self._strings) for text in texts], dtype=np.bool_)
        return ended
