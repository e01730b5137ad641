"""The layers of a Llama-shaped model laid out for generation:
what `LanguageModel.hidden` computes, in fewer and cheaper steps.

Copies the weights when it is built, so it must not outlive an optimizer step. Query, key and value are one product; on
the CPU in float32 all products run on weights packed once for oneDNN, with the activation, the gate and the residual
sum fused into them. Rotary tables are computed once per forward. No dropout, no gradient. Models of any other shape
generate through transformers' modules.

Shape legend: B rows, T tokens, N = B * T, C hidden size, H query heads, K key-value heads, D head size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gr2_worker.model import attention
from gr2_worker.model.lm import LanguageModel

# Families whose layers are: norm, attention with rotary positions (and norms of queries and keys), norm,
# SiLU-gated products.
FAMILIES = ("llama", "qwen2", "qwen3")
# The number of rows that oneDNN lays out weights for; other numbers work too.
EXPECTED_ROWS = 32


class Decoder:
    """Stands in for a LanguageModel while sampling: `hidden` with a cache, and `logits`."""

    def __init__(self, lm: LanguageModel) -> None:
        self._lm = lm
        self.device, self.config, self.tokenizer = lm.device, lm.config, lm.tokenizer
        dtype = torch.bfloat16 if lm.bfloat16 else torch.float32
        packed = lm.device.type == "cpu" and dtype == torch.float32 and _can_pack()

        def product(*modules: nn.Linear) -> _Product:
            return _Product([m.weight for m in modules], [m.bias for m in modules], dtype, packed)

        base = lm.model.get_decoder()
        self._embeddings, self._rotary = base.embed_tokens, base.rotary_emb
        self._layers = [_Layer(layer, product) for layer in base.layers]
        self._norm = _Norm(base.norm)
        self._head = product(lm.model.get_output_embeddings())

    def hidden(self, input_ids_BT: Tensor, position_ids_BT: Tensor, cache: attention.SharedPrefixCache) -> Tensor:
        """Last hidden states [B, T, C], after the final norm; keys and values go into the cache."""
        states = self._embeddings(input_ids_BT)
        cos, sin = self._rotary(states, position_ids_BT)
        half = sin.shape[-1] // 2
        # rotate_half(x) * sin = (x with its halves exchanged) * (sin with its first half negated)
        tables = cos[:, :, None], torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)[:, :, None]
        states_NC = states.flatten(0, 1)
        for number, layer in enumerate(self._layers):
            states_NC = layer(states_NC, input_ids_BT.shape, tables, cache, number)
        return self._norm(states_NC).view(states.shape)

    def logits(self, hidden_nC: Tensor) -> Tensor:
        """Logits [n, V] in float32."""
        return self._lm.rescale(self._head(hidden_nC).float())

    def compute_logits(self, hidden_nC: Tensor, tokens_nJ: Tensor) -> Tensor:
        """Logits [n, J] in float32 of the given tokens only."""
        return self._lm.compute_logits(hidden_nC, tokens_nJ)


def for_generation(lm: LanguageModel) -> Decoder | LanguageModel:
    """A Decoder if the model has the right shape, else the model itself."""
    base = lm.model.get_decoder()
    fits = (
        lm.config.model_type in FAMILIES
        and getattr(lm.config, "hidden_act", None) == "silu"
        and all(_is_plain(layer) for layer in base.layers)
        and type(base.embed_tokens) is nn.Embedding
        and type(lm.model.get_output_embeddings()) is nn.Linear
    )
    return Decoder(lm) if fits else lm


def _can_pack() -> bool:
    """Whether this build of PyTorch has oneDNN's fused products; they are not part of its public interface."""
    mkldnn = torch.ops.mkldnn
    needed = ("_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(mkldnn, name) for name in needed)


def _is_plain(layer: Any) -> bool:
    """Whether a layer has no attention window and all its products are plain (not quantised, not adapted)."""
    own, mlp = layer.self_attn, layer.mlp
    if getattr(own, "sliding_window", None) is not None:
        return False
    projections = (own.q_proj, own.k_proj, own.v_proj, own.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
    return all(type(p) is nn.Linear for p in projections)


class _Product:
    """x W^T + b of one or several stacked Linear modules."""

    def __init__(self, weights: list[Tensor], biases: list[Tensor | None], dtype: torch.dtype, packed: bool) -> None:
        with torch.no_grad():
            weight = (torch.cat(weights) if len(weights) > 1 else weights[0].detach()).to(dtype)
            given = [b for b in biases if b is not None]
            self._bias = torch.cat(given).to(dtype) if given else None
            self._packed = packed
            self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, EXPECTED_ROWS) if packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return F.linear(x.to(self._weight.dtype), self._weight, self._bias)

    def silu(self, x: Tensor) -> Tensor:
        """silu(x W^T + b)."""
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "swish", [], "")
        return F.silu(self(x))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(x W^T + b) * other."""
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, "mul")
        return self(x) * other

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """other + (x W^T + b)."""
        if self._packed:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, "add")
        return other + self(x)


class _Norm:
    """Root-mean-square norm over the last dimension, computed in float32."""

    def __init__(self, module: Any) -> None:
        self.weight, self.epsilon = module.weight.detach(), float(module.variance_epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        return self.weight * F.rms_norm(x.float(), x.shape[-1:], eps=self.epsilon).to(x.dtype)


class _Layer:
    def __init__(self, layer: Any, product: Any) -> None:
        own, mlp = layer.self_attn, layer.mlp
        self._head_size = int(own.head_dim)
        self._scaling = float(own.scaling)
        self._heads = own.q_proj.out_features // self._head_size
        self._kv_heads = own.k_proj.out_features // self._head_size
        self._before, self._between = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self._qkv, self._out = product(own.q_proj, own.k_proj, own.v_proj), product(own.o_proj)
        self._gate, self._up, self._down = product(mlp.gate_proj), product(mlp.up_proj), product(mlp.down_proj)
        self._norm_of_queries = _Norm(own.q_norm) if hasattr(own, "q_norm") else None
        if self._norm_of_queries is not None:
            # One norm for both: one row of weights per head.
            both = [own.q_norm.weight.expand(self._heads, -1), own.k_norm.weight.expand(self._kv_heads, -1)]
            self._norm_of_queries.weight = torch.cat(both).detach()

    def __call__(
        self,
        x_NC: Tensor,
        shape: torch.Size,
        tables: tuple[Tensor, Tensor],
        cache: attention.SharedPrefixCache,
        number: int,
    ) -> Tensor:
        every = self._qkv(self._before(x_NC)).view(*shape, -1, self._head_size)  # [B, T, H + 2K, D]
        turned, values = every.split([self._heads + self._kv_heads, self._kv_heads], dim=2)
        if self._norm_of_queries is not None:
            turned = self._norm_of_queries(turned)
        cos, signed_sin = tables
        exchanged = turned.roll(self._head_size // 2, dims=-1)
        turned = torch.addcmul(turned * cos, exchanged, signed_sin).to(values.dtype).transpose(1, 2)
        query, keys = turned.split([self._heads, self._kv_heads], dim=1)
        keys, values = cache.update(keys, values.transpose(1, 2), number)
        if cache.slots:
            seen = cache.attend(number, query, keys, values, self._scaling)
        else:
            seen = attention.causal(query, keys, values, self._scaling)
        x_NC = self._out.plus(seen.reshape(x_NC.shape[0], -1), x_NC)
        h_NC = self._between(x_NC)
        return self._down.plus(self._up.times(h_NC, self._gate.silu(h_NC)), x_NC)
