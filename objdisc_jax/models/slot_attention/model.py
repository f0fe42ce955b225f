"""Slot Attention auto-encoder for object discovery (Locatello et al. 2020, arXiv 2006.15055)."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from objdisc_jax.models.base import Batch, Loss, Model, Noise, Prediction, Step
from objdisc_jax.models.slot_attention.decoder import ConvBroadcastDecoder, combine
from objdisc_jax.models.slot_attention.settings import Settings
from objdisc_jax.nn.contrast import contrast
from objdisc_jax.nn.conv import conv
from objdisc_jax.nn.mlp import MLP, activation_function
from objdisc_jax.nn.norms import layer_norm
from objdisc_jax.nn.pixel_decoder import MLPBroadcastDecoder, pixel_offsets, select_pixels
from objdisc_jax.nn.position import PositionEmbedding
from objdisc_jax.nn.schedules import cosine_ramp
from objdisc_jax.nn.slot_attention import SlotAttention, SlotAttentionOutput


class ConvEncoder(nnx.Module):
    """Convolutions, each followed by the activation, with residuals where the settings say so."""

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        self.settings = settings
        init, dtype = settings.encoder_init, jnp.dtype(settings.dtype)
        self.layers = nnx.List(
            conv(n_in, n_out, kernel_size, stride=stride, init=init, dtype=dtype, rngs=rngs)
            for (n_in, n_out), kernel_size, stride in zip(
                pairwise((3, *settings.encoder_channels)),
                settings.encoder_kernels,
                settings.encoder_strides,
                strict=True,
            )
        )

    def __call__(self, x: Float[Array, "b h w 3"]) -> Float[Array, "b h2 w2 c"]:
        """Feature maps of images."""
        act = activation_function(self.settings.activation)
        for layer in self.layers:
            y = act(layer(x))
            x = x + y if self.settings.encoder_residual and x.shape == y.shape else y
        return x


class SlotAttentionAutoEncoder(Model):
    """Convolutional encoder, Slot Attention, and a broadcast decoder trained on pixels."""

    input_range = (-1.0, 1.0)
    settings: Settings

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        init, dtype = settings.encoder_init, jnp.dtype(settings.dtype)
        self.encoder = ConvEncoder(settings, rngs=rngs)
        features = settings.encoder_channels[-1]
        self.encoder_position = PositionEmbedding(
            features,
            num_frequencies=settings.num_frequencies if settings.position == "fourier" else 0,
            rngs=rngs,
        )
        self.encoder_layer_norm = layer_norm(features, rngs=rngs) if settings.encoder_norm else None
        self.encoder_mlp = MLP(
            (features,) * 3, activation=settings.activation, init=init, dtype=dtype, rngs=rngs
        )
        self.slot_attention = SlotAttention(features, settings, rngs=rngs)
        if settings.decoder == "conv":
            self.decoder = ConvBroadcastDecoder(settings, rngs=rngs)
        else:
            self.decoder = MLPBroadcastDecoder(
                settings.slot_size,
                settings.decoder_channels,
                resolution=settings.resolution,
                num_frequencies=settings.num_frequencies,
                activation=settings.activation,
                dtype=dtype,
                rngs=rngs,
            )

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Standard normals of the initial slots; offsets of the pixels decoded in training."""
        slots_key, offset_key = jax.random.split(key)
        noise, stride = self.slot_attention.noise(slots_key, batch_size), self.settings.pixel_stride
        if stride > 1:
            noise["offset"] = pixel_offsets(offset_key, batch_size, self.resolution)
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
        return self._compose(self.decoder.decode_image(slots))

    def render(self, slots: Float[Array, "b k d"], *, step: Step) -> Float[Array, "b h w 3"]:
        """What slots paint together."""
        del step
        return self.decode(slots)[0]

    def _compose(self, decoded: Float[Array, "b k *n 4"]):
        if self.settings.output == "tanh":
            decoded = jnp.concatenate([jnp.tanh(decoded[..., :3]), decoded[..., 3:]], axis=-1)
        return combine(decoded)

    def _decode_all(self, slots: Array, image: Array):
        recon, _, masks = self.decode(slots)
        return image, recon, masks

    def _decode_some(self, slots: Array, image: Array, offset: Int[Array, "b 2"]):
        """Decodes every n-th row and column only; returns those pixels of the image too."""
        target, rows, columns = select_pixels(image, offset, self.settings.pixel_stride)
        recon, _, masks = self._compose(self.decoder(slots, rows, columns))
        return target, recon, masks

    def loss(
        self, batch: Batch, noise: Noise, *, step: Step, dropout_key: Array | None = None
    ) -> Loss:
        """Mean squared error over pixels and channels, plus the regularisers that are on."""
        del dropout_key  # no dropout in this model
        settings = self.settings
        slots = self.attend(batch.image, noise).slots
        if settings.pixel_stride > 1:
            decode = partial(self._decode_some, image=batch.image, offset=noise["offset"])
        else:
            decode = partial(self._decode_all, image=batch.image)
        if settings.rematerialize:
            decode = jax.checkpoint(decode)
        target, recon, masks = decode(slots)
        mse = jnp.mean((recon - target) ** 2, axis=tuple(range(1, target.ndim)))
        loss, scalars = mse, {"recon_loss": mse}
        if settings.separation != "none":
            scalars["separation"] = separation(masks, settings.separation)
            weight = ramp(step, settings.separation_weight, settings.separation_ramp)
            loss = loss + weight * scalars["separation"]
        if settings.area_weight:
            scalars["area"] = area(masks, settings.area_of_object)
            loss = loss + ramp(step, settings.area_weight, settings.area_ramp) * scalars["area"]
        return loss, scalars

    def predict(self, batch: Batch, noise: Noise, *, step: Step) -> Prediction:
        """Reconstruction, masks and slots; `extras` has the slots' `recons` and `attn`."""
        del step  # no schedule acts on the prediction
        slots, attn = self.attend(batch.image, noise)
        recon, recons, masks = self.decode(slots)
        return Prediction(
            recon,
            masks,
            slots,
            contrast=contrast(masks, recons, self.input_range),
            extras={"recons": recons, "attn": attn},
        )

    def attention(self, batch: Batch, noise: Noise, *, step: Step) -> Float[Array, "b t k h2 w2"]:
        """Every iteration's attention to the encoder's grid."""
        del step
        height, width = self.resolution
        for stride in self.settings.encoder_strides:
            height, width = -(-height // stride), -(-width // stride)
        attn = self.slot_attention.iterations(self.encode(batch.image), noise.get("slots"))
        return rearrange(attn, "b t (h w) k -> b t k h w", h=height, w=width)

    def visualize(self, batch: Batch, noise: Noise, *, step: Step) -> dict[str, Array]:
        """What each slot paints, shown on white where its mask is low."""
        prediction = self.predict(batch, noise, step=step)
        colours = jnp.clip(0.5 * (prediction.extras["recons"] + 1.0), 0.0, 1.0)
        assert prediction.masks is not None
        masks = prediction.masks[..., None]
        return {"slots": colours * masks + (1.0 - masks)}


def ramp(step: Step, weight: float, steps: tuple[int, int]) -> Float[Array, ""]:
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
