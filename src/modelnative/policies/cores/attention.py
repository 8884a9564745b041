"""A layer of the Transformer: attention to what came before, then a feed-forward part."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear, scaled_dot_product_attention

from modelnative.native import operator


@dataclass
class LayerWeights:
    """The parameters of a layer of width W.

    Attributes:
        norm, norm_bias: float [W], of the layer norm of what attention reads.
        qkv, qkv_bias: float [3W, W] and [3W], of queries, keys and values.
        out, out_bias: float [W, W] and [W], of what attention gives.
        second, second_bias: float [W], of the layer norm of what the feed-forward part reads.
        up, up_bias: float [I, W] and [I].
        down, down_bias: float [W, I] and [W].
    """

    norm: Tensor
    norm_bias: Tensor
    qkv: Tensor
    qkv_bias: Tensor
    out: Tensor
    out_bias: Tensor
    second: Tensor
    second_bias: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor


@operator("transformer")
def transformer_layer(x: Tensor, weights: LayerWeights, heads: int, lengths: Tensor | None = None) -> Tensor:
    """One layer over whole sequences, each token of which sees itself and those before it.

    Args:
        x: float [T, n, W].
        weights: the parameters.
        heads: number of attention heads, a divisor of W.
        lengths: int64 [n], the tokens of each sequence; T for all by default.

    Returns:
        float [T, n, W]; 0 after the end of a sequence.
    """
    steps, n, width = x.shape
    y = continued_layer(x, x.new_empty(n, steps, width), x.new_empty(n, steps, width), 0, weights, heads)
    if lengths is None:
        return y
    return torch.where(torch.arange(steps, device=x.device)[:, None, None] < lengths[:, None], y, 0.0)


@operator("transformer")
def cached_transformer_layer(
    x: Tensor, keys: Tensor, values: Tensor, past: int, weights: LayerWeights, heads: int
) -> Tensor:
    """As `continued_layer`, but not differentiable."""
    return continued_layer(x, keys, values, past, weights, heads)


def continued_layer(x: Tensor, keys: Tensor, values: Tensor, past: int, weights: LayerWeights, heads: int) -> Tensor:
    """One layer over T new tokens of n sequences, which see each other causally and all tokens before.

    Args:
        x: float [T, n, W], the new tokens.
        keys, values: float [n, capacity, W] each; those of the new tokens are written into them.
        past: how many tokens are in them already.
        weights, heads: as of `transformer_layer`.

    Returns:
        float [T, n, W].
    """
    steps, _, width = x.shape
    normal = layer_norm(x, (width,), weights.norm, weights.norm_bias)
    query, key, value = linear(normal, weights.qkv, weights.qkv_bias).transpose(0, 1).chunk(3, -1)
    keys[:, past : past + steps], values[:, past : past + steps] = key, value
    split, parts = (heads, width // heads), (query, keys[:, : past + steps], values[:, : past + steps])
    query, key, value = (part.unflatten(-1, split).transpose(1, 2) for part in parts)
    age = torch.arange(past, past + steps, device=x.device)[:, None]
    causal = torch.arange(past + steps, device=x.device) <= age
    mixed = scaled_dot_product_attention(query, key, value, causal)
    x = x + linear(mixed.permute(2, 0, 1, 3).flatten(2), weights.out, weights.out_bias)
    inner = linear(layer_norm(x, (width,), weights.second, weights.second_bias), weights.up, weights.up_bias)
    return x + linear(gelu(inner, approximate="tanh"), weights.down, weights.down_bias)


def attention_weights(x: Tensor, keys: Tensor, past: int, weights: LayerWeights, heads: int) -> Tensor:
    """What T tokens attend to in `continued_layer`, after it has written their keys.

    Args:
        x, keys, past, weights, heads: as of `continued_layer`.

    Returns:
        float [T, n, heads, past + T], which sum to 1.
    """
    steps, _, width = x.shape
    normal = layer_norm(x, (width,), weights.norm, weights.norm_bias)
    query = linear(normal, weights.qkv[:width], weights.qkv_bias[:width]).unflatten(-1, (heads, width // heads))
    key = keys[:, : past + steps].unflatten(-1, (heads, width // heads))
    scores = torch.einsum("tnhd,nshd->tnhs", query, key) / math.sqrt(width // heads)
    age = torch.arange(past, past + steps, device=x.device)[:, None]
    later = torch.arange(past + steps, device=x.device) > age
    return scores.masked_fill(later[:, None, None], -torch.inf).softmax(-1)
