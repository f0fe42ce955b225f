"""The discrete VAE of SLATE in PyTorch."""

from collections.abc import Iterator

from torch import Tensor, nn

from objdisc_jax.interop.blocks import initialise
from objdisc_jax.models.slate.settings import PATCH


class ConvBlock(nn.GroupNorm):
    """Convolution without bias, GroupNorm with one group, ReLU; the norm's parameters are its own.

    The arguments are those of `torch.nn.Conv2d`.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1):
        super().__init__(1, out_channels)
        padding = 0 if kernel_size == stride else kernel_size // 2
        self.m = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False)
        initialise(self.m, "kaiming")

    def forward(self, input: Tensor) -> Tensor:
        """Applies the block to `[b, c, h, w]`."""
        return super().forward(self.m(input)).relu()


class DVAE(nn.Module):
    """Encoder to logits of tokens and decoder of (relaxed) one-hot codes, both `[b, v, h, w]`."""

    def __init__(self, vocab_size: int, features: int):
        super().__init__()
        c = features
        self.encoder = nn.Sequential(
            ConvBlock(3, c, PATCH, PATCH),
            *(ConvBlock(c, c) for _ in range(6)),
            nn.Conv2d(c, vocab_size, 1),
        )

        def enlarge() -> list[nn.Module]:
            return [
                ConvBlock(c, c, 3),
                ConvBlock(c, c),
                ConvBlock(c, c),
                ConvBlock(c, 4 * c),
                nn.PixelShuffle(2),
            ]

        self.decoder = nn.Sequential(
            ConvBlock(vocab_size, c), *enlarge(), *enlarge(), nn.Conv2d(c, 3, 1)
        )
        for layer in (self.encoder[-1], self.decoder[-1]):
            assert isinstance(layer, nn.Conv2d)
            initialise(layer, "xavier")


def dvae_names() -> Iterator[tuple[str, str]]:
    """Names of the blocks, whose convolution is `m`; the norm's parameters are the block's own."""
    places = {rf"encoder\.{i}": f"encoder.{i}" for i in range(7)} | {r"decoder\.0": "embed"}
    places |= {
        rf"decoder\.{1 + 5 * stage + i}": f"stages.{stage}.{i}"
        for stage in (0, 1)
        for i in range(4)
    }
    for name, place in places.items():
        yield rf"dvae\.{name}\.m", f"dvae.{place}.conv"
        yield rf"dvae\.{name}", f"dvae.{place}.norm"
