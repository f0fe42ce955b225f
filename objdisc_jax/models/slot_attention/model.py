"""Slot Attention auto-encoder for object discovery (Locatello et al. 2020, arXiv 2006.15055)."""

from functools import partial

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from objdisc_jax.models.base import Model, Noise, Prediction
from objdisc_jax.models.slot_attention.decoder import ConvBroadcastDecoder, MLPBroadcastDecoder, combine
from objdisc_jax.nn.conv import ConvStack
from objdisc_jax.nn.initializers import Init
from objdisc_jax.nn.mlp import MLP
from objdisc_jax.nn.norms import layer_norm
from objdisc_jax.models.slot_attention.position import PositionEmbedding
from objdisc_jax.nn.schedules import cosine_ramp
from objdisc_jax.nn.slot_attention import SlotAttention, SlotAttentionOutput


def default_config() -> ConfigDict:
    """The published 128x128 model; every key is an argument of `SlotAttentionAutoEncoder`."""
    config = ConfigDict()
    config.name = "slot_attention"
    config.resolution = (128, 128)  # height and width that images are resized to
    config.num_slots = 7  # slots, the background's included
    config.slot_size = 64  # size of a slot
    config.num_iterations = 3  # rounds of attention; "implicit" adds the differentiated one
    config.mlp_hidden_size = 128  # width of the slots' residual MLP
    config.gradient = "implicit"  # implicit | unrolled | bo_qsa
    config.encoder_channels = (64, 64, 64, 64)  # one entry a convolution
    config.encoder_kernels = (5, 5, 5, 5)  # sides of their kernels
    config.encoder_strides = (1, 1, 1, 1)  # their strides
    config.encoder_residual = False  # add a convolution's input to its output where shapes agree
    config.encoder_norm = False  # LayerNorm before the per-position MLP, as the 2020 paper has
    config.encoder_init = "fan_in"  # fan_in (PyTorch's default) | kaiming | xavier
    config.position = "linear"  # encoder position embedding: linear | fourier
    config.num_frequencies = 12  # harmonics of Fourier position features, encoder and MLP decoder
    config.activation = "leaky_relu"  # leaky_relu | relu
    config.decoder = "conv"  # conv (spatial broadcast) | mlp (every pixel alone)
    config.decoder_channels = (64, 64, 64, 64, 64)  # one entry a layer before the last
    config.decoder_strides = (2, 2, 2, 2, 1)  # conv: enlargement of each layer
    config.decoder_grid = (8, 8)  # conv: slots are tiled over it; resolution / prod(strides)
    config.pixel_stride = 1  # mlp: train on every n-th row and column, at a random offset
    config.rematerialize = False  # compute the decoder's activations again to save memory
    config.output = "linear"  # colours: linear | tanh
    config.separation = "none"  # regulariser of the masks: none | max | entropy
    config.separation_weight = 0.0  # its final weight
    config.separation_ramp = (60_000, 65_000)  # steps between which the weight rises from 0
    config.area_weight = 0.0  # final weight of the regulariser towards objects of one area
    config.area_ramp = (60_000, 65_000)  # steps between which that weight rises from 0
    config.area_of_object = 81  # that area, in pixels
    config.dtype = "float32"  # compute type: float32 | bfloat16
    return config


class SlotAttentionAutoEncoder(Model):
    """Convolutional encoder, Slot Attention, and a broadcast decoder trained on pixels.

    The arguments are the keys of `default_config`. The default is what the published PyTorch
    weights need; the 2020 paper's encoder has a LayerNorm (`encoder_norm`) and ReLUs.

    Raises:
        ValueError: a setting is unknown or two contradict each other; names them.
    """

    input_range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        resolution: tuple[int, int],
        num_slots: int,
        slot_size: int,
        num_iterations: int,
        mlp_hidden_size: int,
        gradient: str,
        encoder_channels: tuple[int, ...],
        encoder_kernels: tuple[int, ...],
        encoder_strides: tuple[int, ...],
        encoder_residual: bool,
        encoder_norm: bool,
        encoder_init: Init,
        position: str,
        num_frequencies: int,
        activation: str,
        decoder: str,
        decoder_channels: tuple[int, ...],
        decoder_strides: tuple[int, ...],
        decoder_grid: tuple[int, int],
        pixel_stride: int,
        rematerialize: bool,
        output: str,
        separation: str,
        separation_weight: float,
        separation_ramp: tuple[int, int],
        area_weight: float,
        area_ramp: tuple[int, int],
        area_of_object: int,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        for key, value, allowed in (
            ("decoder", decoder, ("conv", "mlp")),
            ("output", output, ("linear", "tanh")),
            ("separation", separation, ("none", "max", "entropy")),
            ("dtype", str(dtype), ("float32", "bfloat16")),
        ):
            if value not in allowed:
                raise ValueError(f"model.{key}: got {value!r}; allowed are {', '.join(allowed)}.")
        for key, value in (("resolution", resolution), ("decoder_grid", decoder_grid)):
            if len(value) != 2 or min(value) < 1:
                raise ValueError(f"model.{key}: got {value}; it is a height and a width, (64, 64).")
        for key, value in (
            ("num_slots", num_slots),
            ("slot_size", slot_size),
            ("mlp_hidden_size", mlp_hidden_size),
            ("area_of_object", area_of_object),
        ):
            if value < 1:
                raise ValueError(f"model.{key}: got {value}; it must be at least 1.")
        dtype = jnp.dtype(dtype)
        self.resolution = (resolution[0], resolution[1])
        self.dtype = dtype
        self.pixel_stride = pixel_stride
        self.rematerialize = rematerialize
        self.output = output
        self.separation = separation
        self.separation_weight = separation_weight
        self.separation_ramp = separation_ramp[0], separation_ramp[1]
        self.area_weight = area_weight
        self.area_ramp = area_ramp[0], area_ramp[1]
        self.area_of_object = area_of_object

        self.encoder = ConvStack(
            3,
            encoder_channels,
            encoder_kernels,
            encoder_strides,
            activation=activation,
            residual=encoder_residual,
            init=encoder_init,
            dtype=dtype,
            rngs=rngs,
        )
        features = encoder_channels[-1]
        self.encoder_position = PositionEmbedding(
            features, kind=position, num_frequencies=num_frequencies, rngs=rngs
        )
        self.encoder_layer_norm = layer_norm(features, rngs=rngs) if encoder_norm else None
        self.encoder_mlp = MLP(
            (features,) * 3, activation=activation, init=encoder_init, dtype=dtype, rngs=rngs
        )
        self.slot_attention = SlotAttention(
            features,
            num_slots=num_slots,
            slot_size=slot_size,
            mlp_hidden_size=mlp_hidden_size,
            num_iterations=num_iterations,
            gradient=gradient,
            dtype=dtype,
            rngs=rngs,
        )
        if decoder == "conv":
            self.decoder = ConvBroadcastDecoder(
                slot_size,
                grid=(decoder_grid[0], decoder_grid[1]),
                features=decoder_channels,
                strides=decoder_strides,
                activation=activation,
                dtype=dtype,
                rngs=rngs,
            )
        else:
            self.decoder = MLPBroadcastDecoder(
                slot_size,
                hidden=decoder_channels,
                num_frequencies=num_frequencies,
                activation=activation,
                dtype=dtype,
                rngs=rngs,
            )
        self._check_decoder()

    def _check_decoder(self) -> None:
        if isinstance(self.decoder, ConvBroadcastDecoder):
            if self.decoder.output_size != self.resolution:
                raise ValueError(
                    f"model.decoder_grid: the decoder gives {self.decoder.output_size} pixels "
                    f"(grid times the product of decoder_strides), but model.resolution is "
                    f"{self.resolution}; change one of the three."
                )
            if self.pixel_stride != 1:
                raise ValueError(
                    f"model.pixel_stride: got {self.pixel_stride}; only decoder='mlp' can "
                    "be trained on a part of the pixels. Set it to 1."
                )
        if not 1 <= self.pixel_stride <= min(self.resolution):
            raise ValueError(
                f"model.pixel_stride: got {self.pixel_stride}; it must lie between 1 and "
                f"the image's smaller side, {min(self.resolution)}."
            )
        if self.pixel_stride > 1 and self.area_weight:
            raise ValueError(
                "model.area_weight: the area regulariser counts every pixel of a mask; set "
                "model.pixel_stride to 1 or model.area_weight to 0."
            )

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Standard normals of the initial slots; offsets of the decoder's pixel lattice."""
        slots_key, lattice_key = jax.random.split(key)
        noise = {}
        slots = self.slot_attention.noise(slots_key, batch_size)
        if slots is not None:
            noise["slots"] = slots
        if self.pixel_stride > 1:
            spans = [
                side - self.pixel_stride * (side // self.pixel_stride - 1)
                for side in self.resolution
            ]
            noise["lattice"] = jax.random.randint(
                lattice_key, (batch_size, 2), 0, jnp.asarray(spans)
            )
        return noise

    def encode(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b n c"]:
        """The vectors that Slot Attention reads, row by row."""
        x = self.encoder_position.add_to(self.encoder(image))
        x = rearrange(x, "b h w c -> b (h w) c")
        if self.encoder_layer_norm is not None:
            x = self.encoder_layer_norm(x)
        return self.encoder_mlp(x)

    def attend(self, image: Float[Array, "b h w 3"], noise: Noise) -> SlotAttentionOutput:
        """Slots of images and the attention that found them."""
        return self.slot_attention(self.encode(image), noise.get("slots"))

    def decode(
        self, slots: Float[Array, "b k d"]
    ) -> tuple[Float[Array, "b h w 3"], Float[Array, "b k h w 3"], Float[Array, "b k h w"]]:
        """Image, colours of every slot, and masks, at all pixels."""
        return self._compose(self.decoder.decode_image(slots, self.resolution))

    def _compose(self, decoded: Float[Array, "b k *n 4"]):
        if self.output == "tanh":
            decoded = jnp.concatenate([jnp.tanh(decoded[..., :3]), decoded[..., 3:]], axis=-1)
        return combine(decoded)

    def _decode_all(self, slots: Array, image: Array):
        recon, _, masks = self.decode(slots)
        return image, recon, masks

    def _decode_lattice(self, slots: Array, image: Array, offset: Int[Array, "b 2"]):
        """Decodes every n-th row and column only; returns those pixels of the image too."""
        rows, cols = (
            offset[:, axis, None] + self.pixel_stride * jnp.arange(side // self.pixel_stride)
            for axis, side in enumerate(self.resolution)
        )
        batch = jnp.arange(image.shape[0])[:, None, None]
        target = image[batch, rows[:, :, None], cols[:, None, :]]
        yx = jnp.stack(
            jnp.broadcast_arrays(
                rows[:, :, None] / (self.resolution[0] - 1),
                cols[:, None, :] / (self.resolution[1] - 1),
            ),
            axis=-1,
        )
        decoded = self.decoder(slots, rearrange(yx, "b r c xy -> b (r c) xy"))
        recon, _, masks = self._compose(decoded)
        return rearrange(target, "b r c ch -> b (r c) ch"), recon, masks

    def loss(
        self,
        image: Float[Array, "b h w 3"],
        noise: Noise,
        *,
        step: Int[Array, ""],
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "b"], dict[str, Float[Array, "b"]]]:
        """Mean squared error over pixels and channels, plus the regularisers that are on."""
        del dropout_key  # no dropout in this model
        slots = self.attend(image, noise).slots
        if self.pixel_stride > 1:
            decode = partial(self._decode_lattice, image=image, offset=noise["lattice"])
        else:
            decode = partial(self._decode_all, image=image)
        if self.rematerialize:
            decode = jax.checkpoint(decode)
        target, recon, masks = decode(slots)
        mse = jnp.mean((recon - target) ** 2, axis=tuple(range(1, target.ndim)))
        loss, scalars = mse, {"recon_loss": mse}
        if self.separation != "none":
            scalars["separation"] = separation(masks, self.separation)
            weight = ramp(step, self.separation_weight, self.separation_ramp)
            loss = loss + weight * scalars["separation"]
        if self.area_weight:
            scalars["area"] = area(masks, self.area_of_object)
            loss = loss + ramp(step, self.area_weight, self.area_ramp) * scalars["area"]
        return loss, scalars

    def predict(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Int[Array, ""]
    ) -> Prediction:
        """Reconstruction, masks and slots; `extras` has the slots' `recons` and `attn`."""
        del step  # no schedule acts on the prediction
        slots, attn = self.attend(image, noise)
        recon, recons, masks = self.decode(slots)
        return Prediction(recon, masks, slots, extras={"recons": recons, "attn": attn})

    def panels(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Int[Array, ""]
    ) -> dict[str, Array]:
        """What each slot paints, shown on white where its mask is low."""
        prediction = self.predict(image, noise, step=step)
        colours = jnp.clip(0.5 * (prediction.extras["recons"] + 1.0), 0.0, 1.0)
        masks = prediction.masks[..., None]
        return {"slots": colours * masks + (1.0 - masks)}


def ramp(step: Int[Array, ""], weight: float, steps: tuple[int, int]) -> Float[Array, ""]:
    """A regulariser's weight: 0 before the first step, full after the second."""
    return cosine_ramp(
        step, start_value=0.0, end_value=weight, start_step=steps[0], end_step=steps[1]
    )


def separation(masks: Float[Array, "b k *n"], kind: str) -> Float[Array, "b"]:
    """How undecided the masks are: `entropy` over slots, or 1 − the largest mask (`max`)."""
    if kind == "max":
        value = 1.0 - jnp.max(masks, axis=1)
    else:
        p = masks + 1e-8
        value = -jnp.sum(p * jnp.log(p), axis=1)
    return jnp.mean(value, axis=tuple(range(1, value.ndim)))


def area(masks: Float[Array, "b k h w"], object_area: float) -> Float[Array, "b"]:
    """Pulls every mask towards the area of two objects or that of what they leave (BoxWorld).

    With a the area of a mask, s `object_area` and g = h·w − (k − 1)·s: the mean over slots of
    min((a − 2s)², max(g − a, 0)·(g − a)) / (2s)².
    """
    k, height, width = masks.shape[1:]
    areas = jnp.sum(masks, axis=(2, 3))
    rest = height * width - (k - 1) * object_area - areas
    as_object = (areas - 2.0 * object_area) ** 2
    as_background = jnp.maximum(rest, 0.0) * rest
    # jnp.where rather than jnp.minimum: on a tie the gradient goes to the first branch alone.
    least = jnp.where(as_object <= as_background, as_object, as_background)
    return jnp.mean(least, axis=1) / (2.0 * object_area) ** 2
