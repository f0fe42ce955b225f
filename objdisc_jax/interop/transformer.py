"""The transformer decoder of SLATE in PyTorch."""

import torch
from torch import Tensor, nn

from objdisc_jax.interop import layouts
from objdisc_jax.interop.blocks import initialise, mlp
from objdisc_jax.interop.layouts import DENSE, Rule
from objdisc_jax.models.slate.settings import Settings


class MultiHeadAttention(nn.Module):
    """Multi-head attention without biases; dropout of the weights and of the output."""

    def __init__(self, features: int, num_heads: int, dropout: float, gain: float):
        super().__init__()
        self.num_heads = num_heads
        self.attn_dropout = nn.Dropout(dropout)
        self.output_dropout = nn.Dropout(dropout)
        self.proj_q = nn.Linear(features, features, bias=False)
        self.proj_k = nn.Linear(features, features, bias=False)
        self.proj_v = nn.Linear(features, features, bias=False)
        self.proj_o = nn.Linear(features, features, bias=False)
        for layer in (self.proj_q, self.proj_k, self.proj_v):
            initialise(layer, "xavier")
        initialise(self.proj_o, "xavier", gain)

    def forward(self, x: Tensor, memory: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Lets `[b, t, d]` attend to `[b, s, d]`, except where `hidden` `[t, s]` is true."""
        q, k, v = (
            project(y).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for project, y in ((self.proj_q, x), (self.proj_k, memory), (self.proj_v, memory))
        )
        logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if hidden is not None:
            logits = logits.masked_fill(hidden, float("-inf"))
        weights = self.attn_dropout(logits.float().softmax(-1))
        return self.output_dropout(self.proj_o((weights @ v).transpose(1, 2).flatten(-2)))

    def rules(self, path: str, key: str) -> list[Rule]:
        """The module's rules."""
        names = {"project_q": "proj_q", "project_k": "proj_k", "project_v": "proj_v"}
        names["project_out"] = "proj_o"
        return [
            Rule(f"{path}.{ours}.kernel", f"{key}.{theirs}.weight", DENSE)
            for ours, theirs in names.items()
        ]


class TransformerBlock(nn.Module):
    """Causal self-attention, cross-attention, feed-forward network, each after a LayerNorm.

    The first block's residual of self-attention is the normalised input.
    """

    self_attn_mask: Tensor

    def __init__(
        self,
        num_tokens: int,
        features: int,
        num_heads: int,
        dropout: float,
        gain: float,
        is_first: bool,
    ):
        super().__init__()
        self.is_first = is_first
        hidden = torch.ones(num_tokens, num_tokens, dtype=torch.bool).triu(1)
        self.register_buffer("self_attn_mask", hidden)
        self.self_attn_layer_norm = nn.LayerNorm(features)
        self.self_attn = MultiHeadAttention(features, num_heads, dropout, gain)
        self.encoder_decoder_attn_layer_norm = nn.LayerNorm(features)
        self.encoder_decoder_attn = MultiHeadAttention(features, num_heads, dropout, gain)
        self.ffn_layer_norm = nn.LayerNorm(features)
        self.ffn = mlp((features, 4 * features, features), gain)
        self.ffn_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Applies the block to `[b, t, d]`, given `[b, k, d]`."""
        t = x.shape[1]
        y = self.self_attn_layer_norm(x)
        x = y if self.is_first else x
        x = x + self.self_attn(y, y, self.self_attn_mask[:t, :t])
        y = self.encoder_decoder_attn_layer_norm(x)
        x = x + self.encoder_decoder_attn(y, context)
        return x + self.ffn_dropout(self.ffn(self.ffn_layer_norm(x)))

    def rules(self, path: str, key: str) -> list[Rule]:
        """The block's rules."""
        norms = {
            "self_norm": "self_attn_layer_norm",
            "cross_norm": "encoder_decoder_attn_layer_norm",
            "mlp_norm": "ffn_layer_norm",
        }
        return [
            *(
                rule
                for ours, theirs in norms.items()
                for rule in layouts.scale_and_bias(f"{path}.{ours}", f"{key}.{theirs}")
            ),
            *self.self_attn.rules(f"{path}.self_attention", f"{key}.self_attn"),
            *self.encoder_decoder_attn.rules(
                f"{path}.cross_attention", f"{key}.encoder_decoder_attn"
            ),
            *layouts.weight_and_bias(f"{path}.mlp_in", f"{key}.ffn.0", DENSE),
            *layouts.weight_and_bias(f"{path}.mlp_out", f"{key}.ffn.2", DENSE),
        ]


class TransformerDecoder(nn.Module):
    """Blocks that predict every token from those before it and from a context."""

    def __init__(self, num_tokens: int, settings: Settings):
        super().__init__()
        num_blocks = settings.num_decoder_blocks
        sizes = (num_tokens, settings.d_model, settings.num_heads, settings.dropout)
        self.blocks = nn.ModuleList(
            TransformerBlock(*sizes, gain=(3 * num_blocks) ** -0.5, is_first=i == 0)
            for i in range(num_blocks)
        )
        self.layer_norm = nn.LayerNorm(settings.d_model)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """What every position of `[b, t, d]` says of the next."""
        for block in self.blocks:
            x = block(x, context)
        return self.layer_norm(x)

    def rules(self, path: str, key: str) -> list[Rule]:
        """The module's rules."""
        rules = layouts.scale_and_bias(f"{path}.norm", f"{key}.layer_norm")
        for i, block in enumerate(self.blocks):
            assert isinstance(block, TransformerBlock)
            rules += block.rules(f"{path}.blocks.{i}", f"{key}.blocks.{i}")
        return rules
