"""A language model of the worker: loading (scratch, pretrained folder or hub id, GGUF), added tokens,
hidden states, logits.

Knows tensors, not batches, losses or requests; new rows are vocabulary.py's, LoRA is lora.py's. Trained weights are
float32 masters, for which bfloat16 is an autocast; frozen ones are stored in the compute type.

Shape legend: B rows, T tokens, V vocabulary rows, C hidden size, n selected positions.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from gr2_worker.errors import FailedPrecondition, InvalidRequest, NotFound, first_line
from gr2_worker.model import attention, lora, vocabulary
from gr2_worker.model.packing import MicroBatch
from gr2_worker.model.past import Past
from gr2_worker.types import LoadSpec

STATE_FILE = "gr2_state.json"
# Without any of these, transformers would make up an empty tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
# The worker's attention equals that of these families (tests compare with transformers' own); gpt2 is SASRec's.
FAMILIES = ("qwen3", "qwen2", "llama", "smollm3", "mistral", "gemma", "gemma2", "gemma3_text", "gpt2")
# End-of-text tokens of common tokenizers, most specific first; used when nothing declares one.
KNOWN_EOS = ("<|im_end|>", "<|eos|>", "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>")
# Likewise begin-of-text tokens; only chat templates need them.
KNOWN_BOS = ("<|begin_of_text|>", "<bos>", "<s>")

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
attention.register()


class LanguageModel:
    """A causal language model with its tokenizer and vocabulary extensions."""

    def __init__(self, model: Any, tokenizer: Tokenizer, spec: LoadSpec, device: torch.device) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.device = device
        self.trainable = spec.trainable
        self.adapter: lora.Adapter | None = None
        self.bfloat16 = spec.dtype == "bfloat16"
        self.embedding_dropout = 0.0
        self.eos_token_id = -1
        self.chat_template = ""
        self.bos_token = ""
        self.added_token_ids: list[int] = []

    # ------------------------------------------------------------ what others may ask

    @property
    def config(self) -> Any:
        return self.model.config.get_text_config()

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return int(self.model.get_input_embeddings().num_embeddings)

    @property
    def hidden_size(self) -> int:
        return int(self.config.hidden_size)

    @property
    def max_positions(self) -> int:
        return int(getattr(self.config, "max_position_embeddings", 0) or 0)

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    @property
    def num_trained(self) -> int:
        """Parameters that an optimizer step moves."""
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    def is_trained(self, name: str) -> bool:
        """Whether training changes a parameter, even if this copy of the model is frozen."""
        return self.trainable if self.adapter is None else name in self.adapter.names

    @property
    def tokenizer_json(self) -> bytes:
        return self.tokenizer.to_str().encode()

    # ------------------------------------------------------------ computing

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 autocast for bfloat16 models with float32 masters, else nothing."""
        if self.bfloat16 and (self.trainable or self.adapter is not None):
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def training(self, dropout: bool) -> Iterator[None]:
        """Training mode (gradient checkpointing needs it), with or without dropout; evaluation mode afterwards.

        A policy gradient must see the policy that was sampled from: dropout would make every probability ratio noise.
        """
        dropouts: list[tuple[Any, str, float]] = []
        if not dropout:
            dropouts = [(self, "embedding_dropout", self.embedding_dropout)]
            for module in self.model.modules():
                for name in ("p", "attention_dropout") if isinstance(module, nn.Dropout) else ("attention_dropout",):
                    if isinstance(value := getattr(module, name, None), float):
                        dropouts.append((module, name, value))
        for owner, name, _ in dropouts:
            setattr(owner, name, 0.0)
        self.model.train()
        try:
            yield
        finally:
            self.model.eval()
            for owner, name, value in dropouts:
                setattr(owner, name, value)

    def hidden(
        self,
        input_ids_BT: Tensor,
        position_ids_BT: Tensor,
        blocks: attention.Blocks | None = None,
        cache: attention.SharedPrefixCache | None = None,
        past: Past | None = None,
    ) -> Tensor:
        """Last hidden states [B, T, C], after the final norm. blocks: what attends to what in one packed row;
        None = causal.
        """
        inputs: dict[str, Any] = {"position_ids": position_ids_BT, "attention_mask": None}
        if blocks is not None:
            positions_T = position_ids_BT[0] if past is None else past.positions(position_ids_BT[0])
            inputs |= {"gr2_blocks": blocks, "gr2_positions": positions_T}
        if past is not None:
            inputs["gr2_past"] = past
        if self.embedding_dropout > 0 and self.model.training:
            embeddings = self.model.get_input_embeddings()(input_ids_BT)
            inputs["inputs_embeds"] = F.dropout(embeddings, self.embedding_dropout)
        else:
            inputs["input_ids"] = input_ids_BT
        if cache is None:
            inputs["use_cache"] = False
        else:
            inputs |= {"use_cache": True, "past_key_values": cache, "gr2_cache": cache}
        return self.model.get_decoder()(**inputs).last_hidden_state

    def predicting_states(self, micro_batch: MicroBatch, past: Past | None = None) -> Tensor:
        """Hidden states [n, C] that predict the micro-batch's targets. past: the keys and values of its past tokens."""
        blocks = None if micro_batch.blocks is None else micro_batch.blocks.to(self.device)
        ids, positions = micro_batch.input_ids_BT.to(self.device), micro_batch.position_ids_BT.to(self.device)
        hidden = self.hidden(ids, positions, blocks, past=past)
        return hidden.flatten(0, 1).index_select(0, micro_batch.predict.to(self.device))

    def logits(self, hidden_nC: Tensor) -> Tensor:
        """Logits [n, V] in float32."""
        return self.rescale(self.model.get_output_embeddings()(hidden_nC).float())

    def logits_at(self, hidden_nC: Tensor, tokens_J: Tensor) -> Tensor:
        """Logits [n, J] in float32 of some tokens, the same for every state."""
        head = self.model.get_output_embeddings()
        if type(head) is not nn.Linear:
            return self.logits(hidden_nC)[:, tokens_J]
        bias = None if head.bias is None else head.bias[tokens_J]
        return self.rescale(F.linear(hidden_nC, head.weight[tokens_J], bias).float())

    def compute_logits(self, hidden_nC: Tensor, tokens_nJ: Tensor) -> Tensor:
        """Logits [n, J] in float32 of the given tokens only; negative ids are padding and give an arbitrary logit."""
        tokens = tokens_nJ.clamp(min=0)
        head = self.model.get_output_embeddings()
        if tokens.shape[1] * 4 > self.vocab_size or type(head) not in (nn.Linear, lora.RowHead):
            return self.logits(hidden_nC).gather(1, tokens)
        rows = head.rows_at(tokens) if isinstance(head, lora.RowHead) else F.embedding(tokens, head.weight)
        rows = rows.to(hidden_nC.dtype)
        picked = torch.bmm(rows, hidden_nC[:, :, None])[:, :, 0].float()
        if head.bias is not None:
            picked = picked + head.bias[tokens].float()
        return self.rescale(picked)

    def rescale(self, logits: Tensor) -> Tensor:
        """The output transformations some families' causal heads apply."""
        config = self.config
        if (scaling := getattr(config, "logits_scaling", None)) is not None:
            logits = logits / scaling
        if (scale := getattr(config, "logit_scale", None)) is not None:
            logits = logits * scale
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            logits = cap * torch.tanh(logits / cap)
        return logits


# ---------------------------------------------------------------- loading


def load(spec: LoadSpec, device: torch.device) -> LanguageModel:
    """Builds or loads a model, adds tokens, casts and places it.
    Raises InvalidRequest, NotFound or FailedPrecondition.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(spec.seed)
        loaded = _load_pretrained(spec, device) if spec.path else _build_scratch(spec, device)
        model, tokenizer = loaded.model, loaded.tokenizer
        if spec.added_tokens or spec.pad_vocab_multiple > 0:
            drawn = spec.seed if spec.path else None
            vocabulary.extend(model, tokenizer, spec.added_tokens, spec.pad_vocab_multiple, drawn)
        loaded.added_token_ids = [vocabulary.require_token_id(tokenizer, t) for t in spec.added_tokens]
        if spec.added_token_vectors is not None:
            far = vocabulary.PLACEMENT_PRETRAINED if spec.path else vocabulary.PLACEMENT_FROM_SCRATCH
            vocabulary.place(model, loaded.added_token_ids, spec.added_token_vectors, spec.seed, far)
        if spec.lora is not None:
            loaded.adapter = lora.attach(model, spec.lora, loaded.added_token_ids, spec.seed)
    if loaded.eos_token_id < 0:
        known = (loaded.tokenizer.token_to_id(token) for token in KNOWN_EOS)
        loaded.eos_token_id = next((i for i in known if i is not None), -1)
    frozen_type = torch.bfloat16 if loaded.bfloat16 else torch.float32
    for name, parameter in model.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if loaded.is_trained(name) else frozen_type)
    model.to(device)
    if device.type == "cpu":
        # Weights read from a file are at arbitrary addresses of its mapping; rounding depends on alignment, and a
        # resumed run has to equal an uninterrupted one.
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data = tensor.data.clone()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(spec.trainable and loaded.is_trained(name))
    model.eval()
    if spec.gradient_checkpointing and spec.trainable:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return loaded


def _build_scratch(spec: LoadSpec, device: torch.device) -> LanguageModel:
    try:
        architecture = json.loads(spec.architecture_json)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"architecture_json is not JSON: {error}") from error
    if not isinstance(architecture, dict) or "model_type" not in architecture:
        raise InvalidRequest('architecture_json must be an object with a "model_type"')
    dropout = _embedding_dropout(architecture.pop("embedding_dropout", 0.0))
    tokenizer = vocabulary.parse(spec.tokenizer_json)
    vocabulary.add(tokenizer, spec.added_tokens)
    declared_eos = architecture.get("eos_token_id")
    architecture["vocab_size"] = vocabulary.padded(vocabulary.rows_needed(tokenizer), spec.pad_vocab_multiple)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        # An architecture's default token ids belong to a different vocabulary.
        architecture.setdefault(name, None)
    model_type = architecture.pop("model_type")
    _check_family(model_type, "model.architecture")
    try:
        config = AutoConfig.for_model(model_type, **architecture)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention.NAME, dtype=torch.float32)
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidRequest(
            f"architecture_json does not describe a causal language model: {first_line(error)}"
        ) from error
    loaded = LanguageModel(model, tokenizer, spec, device)
    loaded.embedding_dropout = dropout
    loaded.eos_token_id = declared_eos if isinstance(declared_eos, int) else -1
    return loaded


def _load_pretrained(spec: LoadSpec, device: torch.device) -> LanguageModel:
    folder = Path(spec.path)
    is_local = folder.exists()
    if not is_local and (folder.is_absolute() or spec.path.startswith(".")):
        raise NotFound(f"no model at {spec.path}")
    extra: dict[str, Any] = {"gguf_file": spec.gguf_file} if spec.gguf_file else {"use_safetensors": True}
    if spec.gguf_file and is_local and not (folder / spec.gguf_file).is_file():
        raise NotFound(f"no file {spec.gguf_file} in {spec.path}")
    if is_local and not spec.gguf_file and not any(folder.glob("*.safetensors")):
        raise NotFound(f"{spec.path} has no .safetensors weights (pickled weights are never loaded)")
    _check_config(spec, folder if is_local else None)
    tokenizer, eos_token, chat_template = _load_tokenizer(spec, folder if is_local else None)
    masters = spec.dtype != "bfloat16" or (spec.trainable and spec.lora is None)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            spec.path,
            attn_implementation=attention.NAME,
            dtype=torch.float32 if masters else torch.bfloat16,
            trust_remote_code=False,
            local_files_only=is_local,
            **extra,
        )
    except ImportError as error:
        raise FailedPrecondition(f"loading {spec.path} needs a package that is missing: {first_line(error)}") from error
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise NotFound(f"cannot load a model from {_named(spec)}: {first_line(error)}") from error
    _check_family(model.config.model_type, _named(spec))
    _check_shapes(model, _named(spec))
    if getattr(model.config, "quantization_config", None) is not None:
        del model.config.quantization_config
    loaded = LanguageModel(model, tokenizer, spec, device)
    if is_local and (folder / STATE_FILE).is_file():
        state = json.loads((folder / STATE_FILE).read_text())
        loaded.embedding_dropout = _embedding_dropout(state.get("embedding_dropout", 0.0))
    config_eos = getattr(loaded.config, "eos_token_id", None)
    config_eos = config_eos[0] if isinstance(config_eos, list) and config_eos else config_eos
    by_name = tokenizer.token_to_id(eos_token) if eos_token else None
    loaded.eos_token_id = by_name if by_name is not None else config_eos if isinstance(config_eos, int) else -1
    loaded.chat_template = chat_template
    loaded.bos_token = _bos_token(folder if is_local else None, tokenizer)
    return loaded


def _named(spec: LoadSpec) -> str:
    """The model's name for messages: with its file, if there are several."""
    return f"{spec.path}/{spec.gguf_file}" if spec.gguf_file else spec.path


def _check_family(model_type: str, where: str) -> None:
    if model_type not in FAMILIES:
        hint = "; take a text-only checkpoint (gemma3_text)" if model_type == "gemma3" else ""
        raise InvalidRequest(
            f"{where}: architecture {model_type!r} is not supported{hint}; supported are {', '.join(FAMILIES)}"
        )


def _check_shapes(model: Any, path: str) -> None:
    """Refuses a GGUF file of which transformers missed a dimension, so that weights are in layers of the wrong size."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.weight.shape != (module.out_features, module.in_features):
            shape = tuple(module.weight.shape)
            raise FailedPrecondition(
                f"{path}: {name} is {shape}, the configuration says {(module.out_features, module.in_features)}"
            )


def _check_config(spec: LoadSpec, folder: Path | None) -> None:
    """Refuses an unsupported architecture before gigabytes of it are read. Hub ids are checked once they are loaded."""
    if folder is None or spec.gguf_file:
        return
    try:
        model_type = json.loads((folder / "config.json").read_text()).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise NotFound(f"{spec.path} has no readable config.json: {first_line(error)}") from error
    _check_family(str(model_type), spec.path)


def _load_tokenizer(spec: LoadSpec, folder: Path | None) -> tuple[Tokenizer, str, str]:
    """(tokenizer, eos token or "", chat template or ""). A local tokenizer.json is taken as it is."""
    if spec.tokenizer_json:
        return vocabulary.parse(spec.tokenizer_json), "", ""
    if folder is not None and (folder / "tokenizer.json").is_file():
        settings_file, template_file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
        settings = json.loads(settings_file.read_text()) if settings_file.is_file() else {}
        eos = settings.get("eos_token") or ""
        template = template_file.read_text() if template_file.is_file() else settings.get("chat_template") or ""
        if isinstance(template, list):
            template = next((t["template"] for t in template if t.get("name") == "default"), "")
        return (
            vocabulary.parse((folder / "tokenizer.json").read_bytes()),
            eos["content"] if isinstance(eos, dict) else str(eos),
            str(template),
        )
    extra = {"gguf_file": spec.gguf_file} if spec.gguf_file else {}
    if folder is not None and not extra and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FailedPrecondition(f"{spec.path} has no tokenizer (no {', no '.join(TOKENIZER_FILES)})")
    try:
        auto = AutoTokenizer.from_pretrained(spec.path, trust_remote_code=False, **extra)
        # A GGUF file's end-of-text id survives in the config, but transformers may name another token for it.
        eos = "" if spec.gguf_file else auto.eos_token or ""
        return auto.backend_tokenizer, eos, str(auto.chat_template or "")
    except Exception as error:  # the Auto classes raise nearly anything
        raise FailedPrecondition(f"{_named(spec)} has no usable fast tokenizer: {first_line(error)}") from error


def _bos_token(folder: Path | None, tokenizer: Tokenizer) -> str:
    """The bos token of the folder's tokenizer_config.json, else the first of KNOWN_BOS in the vocabulary, else ""."""
    settings_file = folder / "tokenizer_config.json" if folder is not None else None
    if settings_file is not None and settings_file.is_file():
        bos = json.loads(settings_file.read_text()).get("bos_token") or ""
        return str(bos["content"] if isinstance(bos, dict) else bos)
    return next((token for token in KNOWN_BOS if tokenizer.token_to_id(token) is not None), "")


def _embedding_dropout(value: Any) -> float:
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise InvalidRequest(f"embedding_dropout must be in [0, 1), got {value!r}")
    return float(value)
