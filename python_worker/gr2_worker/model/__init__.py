"""A language model and its state: loading, vocabulary, LoRA, packing, attention, optimizer, checkpoints."""
