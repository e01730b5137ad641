"""GGUF: quantised weights arrive with their values, with tokenizer and chat template,
and can be trained and exported.
"""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from asked import forward_spec, load_spec
from gguf.quants import dequantize, quantize
from gr2_worker.engine import Engine
from gr2_worker.errors import NotFound, WorkerFault
from gr2_worker.items.bpe import train_bpe
from gr2_worker.types import GroupBatch, LoraSpec
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

Q4 = gguf.GGMLQuantizationType.Q4_1
HIDDEN, HEADS, KV, INNER, LAYERS = 64, 2, 1, 96, 2
HEAD = 128  # transformers takes this for every Qwen3 in GGUF
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"


def write(path, architecture="qwen3", head=HEAD):
    """A tiny Qwen3 in 4 bits; returns {name in transformers: float32 weight} of its matrices."""
    tokenizer = Tokenizer.from_str(
        train_bpe(["some words to merge some words"], 280, ["<|im_start|>", "<|im_end|>"]).decode()
    )
    vocab = sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(512)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token for token, _ in vocab])
    writer.add_token_types([3 if token.startswith("<|") else 1 for token, _ in vocab])
    writer.add_token_merges([" ".join(pair) for pair in _merges(tokenizer)])
    writer.add_eos_token_id(dict(vocab)["<|im_end|>"])
    writer.add_chat_template(TEMPLATE)
    matrices = {"token_embd": ("model.embed_tokens", len(vocab), HIDDEN)}
    for layer in range(LAYERS):
        ours, theirs = f"blk.{layer}.", f"model.layers.{layer}."
        matrices |= {
            f"{ours}attn_q": (f"{theirs}self_attn.q_proj", HEADS * head, HIDDEN),
            f"{ours}attn_k": (f"{theirs}self_attn.k_proj", KV * head, HIDDEN),
            f"{ours}attn_v": (f"{theirs}self_attn.v_proj", KV * head, HIDDEN),
            f"{ours}attn_output": (f"{theirs}self_attn.o_proj", HIDDEN, HEADS * head),
            f"{ours}ffn_gate": (f"{theirs}mlp.gate_proj", INNER, HIDDEN),
            f"{ours}ffn_up": (f"{theirs}mlp.up_proj", INNER, HIDDEN),
            f"{ours}ffn_down": (f"{theirs}mlp.down_proj", HIDDEN, INNER),
        }
        for norm, size in (("attn_norm", HIDDEN), ("ffn_norm", HIDDEN), ("attn_q_norm", head), ("attn_k_norm", head)):
            writer.add_tensor(f"{ours}{norm}.weight", np.ones(size, dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, dtype=np.float32))
    expected = {}
    for name, (theirs, rows, cols) in matrices.items():
        packed = quantize(rng.normal(scale=0.3, size=(rows, cols)).astype(np.float32), Q4)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=Q4)
        expected[f"{theirs}.weight"] = dequantize(packed, Q4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


def _merges(tokenizer):
    import json

    return [
        pair if isinstance(pair, list) else pair.split(" ")
        for pair in json.loads(tokenizer.to_str())["model"]["merges"]
    ]


def test_quantised_weights_tokenizer_and_template_arrive_and_export(tmp_path):
    expected = write(tmp_path / "tiny.Q4_1.gguf")
    engine = Engine(torch.device("cpu"))
    codes = ("<s_a_0>", "<s_a_1>")
    lora = LoraSpec(2, 4.0, 0.0, ("q_proj",))
    lm = engine.load_model(
        "", load_spec(path=str(tmp_path), gguf_file="tiny.Q4_1.gguf", added_tokens=codes, trainable=True, lora=lora)
    )
    assert lm.chat_template == TEMPLATE and lm.tokenizer.id_to_token(lm.eos_token_id) == "<|im_end|>"
    assert lm.tokenizer.decode(lm.tokenizer.encode("some words").ids) == "some words"
    weights = {n.replace(".base_layer", "").replace(".base", ""): p for n, p in lm.model.named_parameters()}
    for name, values in expected.items():
        np.testing.assert_allclose(weights[name][: len(values)].detach().numpy(), values, atol=1e-6, err_msg=name)
    engine.export_model("", str(tmp_path / "out"), "float32", {"gr2_export.json": b"{}"})
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "out").iterdir()} == {0o644}
    ids = np.asarray([*lm.tokenizer.encode("some words").ids, *lm.added_token_ids], dtype=np.int32)
    n = len(ids) - 1
    got = engine.forward("", forward_spec(GroupBatch(ids, np.asarray([1]), np.asarray([1]), np.asarray([n])))).logprobs
    with torch.no_grad():
        tokens = torch.from_numpy(ids.astype(np.int64))[None]
        logits = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(input_ids=tokens).logits
    want = logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
    np.testing.assert_allclose(got, want.numpy(), atol=1e-4)


def test_damaged_or_foreign_gguf_files_are_refused_in_one_sentence(tmp_path):
    write(tmp_path / "odd.gguf", "mamba")
    write(tmp_path / "narrow.gguf", head=32)
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00\x00\x00 and nothing more")
    said = {}
    for name in ("odd", "cut", "narrow"):
        with pytest.raises(WorkerFault) as caught:
            Engine(torch.device("cpu")).load_model("", load_spec(path=str(tmp_path), gguf_file=f"{name}.gguf"))
        said[name] = str(caught.value)
    assert not any("\n" in message for message in said.values())
    assert "q_proj is (64, 64), the configuration says (256, 64)" in said["narrow"]
    with pytest.raises(NotFound, match=r"no file none\.gguf"):
        Engine(torch.device("cpu")).load_model("", load_spec(path=str(tmp_path), gguf_file="none.gguf"))
