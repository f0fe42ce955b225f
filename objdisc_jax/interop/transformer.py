"""The transformer decoder of SLATE in PyTorch."""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from objdisc_jax.interop.blocks import initialise, layers
from objdisc_jax.settings import TransformerSettings


def residual_gain(settings: TransformerSettings) -> float:
    """Factor of the initial weights of what is added to the residual."""
    return (3 * settings.num_decoder_blocks) ** -0.5


class MultiHeadAttention(nn.Module):
    """Multi-head attention; dropout of the weights and of the output."""

    def __init__(self, settings: TransformerSettings, *, bias: bool):
        super().__init__()
        features, dropout = settings.d_model, settings.dropout
        self.num_heads = settings.num_heads
        self.attn_dropout = nn.Dropout(dropout)
        self.output_dropout = nn.Dropout(dropout)
        self.proj_q = nn.Linear(features, features, bias=bias)
        self.proj_k = nn.Linear(features, features, bias=bias)
        self.proj_v = nn.Linear(features, features, bias=bias)
        self.proj_o = nn.Linear(features, features, bias=bias)
        for layer in (self.proj_q, self.proj_k, self.proj_v):
            initialise(layer, "xavier")
        initialise(self.proj_o, "xavier", residual_gain(settings))

    def weights(self, x: Tensor, memory: Tensor, hidden: Tensor | None = None) -> Tensor:
        """How every position of `[b, t, d]` divides its attention among `[b, s, d]`."""
        q, k = (
            project(y).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project, y in ((self.proj_q, x), (self.proj_k, memory))
        )
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if hidden is not None:
            logits = logits.masked_fill(hidden, float("-inf"))
        return logits.float().softmax(-1)

    def forward(self, x: Tensor, memory: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Lets `[b, t, d]` attend to `[b, s, d]`, except where `hidden` `[t, s]` is true."""
        weights = self.attn_dropout(self.weights(x, memory, hidden))
        v = self.proj_v(memory).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        return self.output_dropout(self.proj_o((weights @ v).transpose(1, 2).flatten(-2)))


class TransformerBlock(nn.Module):
    """Causal self-attention, cross-attention, feed-forward network, each after a LayerNorm.

    The first block's residual of self-attention is the normalised input, unless it is `plain`.
    """

    self_attn_mask: Tensor

    def __init__(
        self, num_tokens: int, settings: TransformerSettings, *, is_first: bool, plain: bool
    ):
        super().__init__()
        self.is_first, features = is_first and not plain, settings.d_model
        hidden = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)
        self.register_buffer("self_attn_mask", hidden)
        self.self_attn_layer_norm = nn.LayerNorm(features)
        self.self_attn = MultiHeadAttention(settings, bias=plain)
        self.encoder_decoder_attn_layer_norm = nn.LayerNorm(features)
        self.encoder_decoder_attn = MultiHeadAttention(settings, bias=plain)
        self.ffn_layer_norm = nn.LayerNorm(features)
        self.ffn = layers(features, 4 * features, features, gain=residual_gain(settings))
        self.ffn_dropout = nn.Dropout(settings.dropout)

    def attend_to_past(self, x: Tensor) -> Tensor:
        """The first third of the block."""
        t = x.shape[1]
        y = self.self_attn_layer_norm(x)
        x = y if self.is_first else x
        return x + self.self_attn(y, y, self.self_attn_mask[:t, :t])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Applies the block to `[b, t, d]`, given `[b, k, d]`."""
        x = self.attend_to_past(x)
        y = self.encoder_decoder_attn_layer_norm(x)
        x = x + self.encoder_decoder_attn(y, context)
        return x + self.ffn_dropout(self.ffn(self.ffn_layer_norm(x)))


class TransformerDecoder(nn.Module):
    """Blocks that predict every token from those before it and from a context.

    They are SLATE's, or `plain` ones: those of `nn.TransformerDecoder` with `norm_first`.
    """

    def __init__(self, num_tokens: int, settings: TransformerSettings, *, plain: bool = False):
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(num_tokens, settings, is_first=i == 0, plain=plain)
            for i in range(settings.num_decoder_blocks)
        )
        self.layer_norm = nn.Identity() if plain else nn.LayerNorm(settings.d_model)

    def cross_weights(self, x: Tensor, context: Tensor) -> Tensor:
        """How every position divides the last block's cross-attention among the context."""
        for block in self.blocks[:-1]:
            x = block(x, context)
        last = self.blocks[-1]
        assert isinstance(last, TransformerBlock)
        y = last.encoder_decoder_attn_layer_norm(last.attend_to_past(x))
        return last.encoder_decoder_attn.weights(y, context)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """What every position of `[b, t, d]` says of the next."""
        for block in self.blocks:
            x = block(x, context)
        return self.layer_norm(x)


def transformer_names(theirs: str, ours: str) -> Iterator[tuple[str, str]]:
    """Names of the blocks' parts, of a decoder with these names in PyTorch and here."""
    block, ours = rf"{re.escape(theirs)}\.blocks\.(\d+)", rf"{ours}.blocks.\1"
    parts = {"self_attn": "self", "encoder_decoder_attn": "cross", "ffn": "mlp"}
    for name, part in parts.items():
        yield rf"{block}\.{name}_layer_norm", f"{ours}.{part}_norm"
        yield rf"{block}\.{name}\.proj_o", f"{ours}.{part}_attention.project_out"
        yield rf"{block}\.{name}\.proj_([qkv])", rf"{ours}.{part}_attention.project_\2"
    yield rf"{block}\.ffn\.0", f"{ours}.mlp_in"
    yield rf"{block}\.ffn\.2", f"{ours}.mlp_out"
