"""A small OpenAI-compatible server around a real model, for tests:
transformers' own `generate`, on the loopback interface.

    python openai_server.py --model FOLDER [--gguf FILE] [--key KEY]      real weights
    python openai_server.py --tiny                                        a random model of a few thousand parameters

Prints "ready PORT" once it serves. One request at a time; temperature, max_tokens and seed as OpenAI has them.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LOCK = threading.Lock()


def tiny() -> tuple[Any, Any]:
    """A byte-level tokenizer without merges and a random Qwen3 of one layer."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="<|im_end|>", chat_template=CHAT)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval(), tokenizer


def answer(model: Any, tokenizer: Any, body: dict[str, Any]) -> dict[str, Any]:
    """One chat completion."""
    prompt = tokenizer.apply_chat_template(
        body["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    temperature = float(body.get("temperature", 1.0))
    drawing = {"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}
    with LOCK, torch.no_grad():
        torch.manual_seed(int(body.get("seed", 0)))
        out = model.generate(
            **prompt,
            **drawing,
            top_k=0,
            max_new_tokens=int(body.get("max_tokens", 16)),
            pad_token_id=tokenizer.eos_token_id,
        )
    read = prompt["input_ids"].shape[1]
    written = out[0, read:]
    text = tokenizer.decode(written, skip_special_tokens=True)
    return {
        "object": "chat.completion",
        "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": read, "completion_tokens": len(written), "total_tokens": read + len(written)},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="")
    parser.add_argument("--gguf", default="")
    parser.add_argument("--key", default="")
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if args.tiny:
        model, tokenizer = tiny()
    else:
        source = {"gguf_file": args.gguf} if args.gguf else {}
        model = AutoModelForCausalLM.from_pretrained(args.model, **source).eval()
        tokenizer = AutoTokenizer.from_pretrained(args.model, **source)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["content-length"]))
            if args.key and self.headers.get("authorization") != f"Bearer {args.key}":
                self.reply(401, {"error": {"message": "invalid key"}})
            elif self.path != "/v1/chat/completions":
                self.reply(404, {"error": {"message": f"no {self.path}"}})
            else:
                self.reply(200, answer(model, tokenizer, json.loads(raw)))

        def reply(self, status: int, value: object) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"ready {server.server_address[1]}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
