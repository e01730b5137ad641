"""Items without a language model: text embeddings, semantic-ID quantizers, matrix factorization,
the tokenizer's training.
"""
