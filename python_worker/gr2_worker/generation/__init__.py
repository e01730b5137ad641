"""Writing tokens: sampling, beam search, prefill and decoding."""
