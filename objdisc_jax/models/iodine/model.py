"""IODINE: iterative object decomposition inference network (Greff et al. 2019, arXiv 1903.00450).

By default equal to the official code (google-deepmind/deepmind-research, commit f5de0ed) but for
one thing: the gradients that the refinement reads are each image's own, times `gradient_scale`.
There they are of the mean over a device's batch, so that what is found in an image depends on how
many are beside.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from objdisc_jax.models.base import Batch, Loss, Model, Noise, Prediction, Step
from objdisc_jax.models.iodine.decoder import ConvBroadcastDecoder
from objdisc_jax.models.iodine.likelihood import Decoded, Mixture
from objdisc_jax.models.iodine.posterior import (
    PRIOR_VARIANCE,
    kl,
    kl_per_dimension,
    mean_and_variance,
    sample,
)
from objdisc_jax.models.iodine.refinement import Pixels, RefinementNetwork
from objdisc_jax.models.iodine.settings import Settings
from objdisc_jax.nn.contrast import contrast
from objdisc_jax.nn.initializers import uniform
from objdisc_jax.nn.pixel_decoder import MLPBroadcastDecoder, lattice, pixel_offsets
from objdisc_jax.nn.position import coordinates

TRAVERSED = (-1.25, -0.625, 0.0, 0.625, 1.25)
"""Values of the latent dimension that is shown."""


class Refined(NamedTuple):
    """Posteriors of t iterations."""

    posteriors: Float[Array, "t1 b k p"]  # before each iteration, and after the last
    nlls: Float[Array, "t b"]  # −log p(image) of a draw from each but the last, in nats


class IODINE(Model):
    """Slots whose posteriors are refined by the gradients of how they explain the image.

    Slots differ at first by their noise alone: equal noise would leave them equal for ever.
    Predictions draw from the posterior, too, as the official ones do.
    """

    input_range = (0.0, 1.0)
    settings: Settings

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        num_parameters = 2 * settings.slot_size
        init = uniform((3.0 / num_parameters) ** 0.5)
        self.initial_posterior = nnx.Param(init(rngs.params(), (num_parameters,), jnp.float32))
        if settings.decoder == "conv":
            self.decoder = ConvBroadcastDecoder(settings, rngs=rngs)
        else:
            self.decoder = MLPBroadcastDecoder(
                settings.slot_size,
                settings.decoder_channels,
                resolution=settings.resolution,
                num_frequencies=settings.num_frequencies,
                activation="relu",
                dtype=jnp.dtype(settings.dtype),
                rngs=rngs,
            )
        self.refinement = RefinementNetwork(settings, rngs=rngs)

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Standard normals of every draw of the latents; offsets of the pixels it is compared at.

        A draw's are the same however many there are.
        """
        settings = self.settings
        num_draws = 1 + max(settings.num_iterations, settings.num_predict_iterations)

        def draw(t: Array) -> Noise:
            latents_key, offset_key = jax.random.split(jax.random.fold_in(key, t))
            shape = (batch_size, settings.num_slots, settings.slot_size)
            noise = {"latents": jax.random.normal(latents_key, shape)}
            if settings.pixel_stride > 1:
                noise["offset"] = pixel_offsets(offset_key, batch_size, settings.resolution)
            return noise

        return jax.vmap(draw, out_axes=1)(jnp.arange(num_draws))

    def pixels(self, image: Float[Array, "b h w 3"], draw: Noise) -> Pixels:
        """The pixels that a draw is compared at.

        Every draw has its own: with those of the draw before, what lies between went unseen.
        """
        stride = self.settings.pixel_stride
        if stride == 1:
            rows, columns = (coordinates(side)[None] for side in self.resolution)
            return Pixels(image, rows, columns, image)
        rows, columns = lattice(draw["offset"], self.resolution, stride)
        squares = squares_around(image, rows, columns, stride)
        middle = (stride - 1) // 2
        height, width = self.resolution
        return Pixels(
            squares[..., middle, middle, :],
            rows / (height - 1),
            columns / (width - 1),
            rearrange(squares, "b m n i j c -> b m n (i j c)"),
        )

    def decode(self, slots: Float[Array, "b k z"], pixels: Pixels | None = None) -> Decoded:
        """What slots paint at some pixels, or everywhere."""
        if pixels is None or self.settings.pixel_stride == 1:
            painted = self.decoder.decode_image(slots)
        else:
            assert isinstance(self.decoder, MLPBroadcastDecoder)
            painted = self.decoder(slots, pixels.rows, pixels.columns)
        return Decoded(painted[..., 0], painted[..., 1:])

    def nll(self, mixture: Mixture) -> Float[Array, "b"]:
        """−log p(image) in nats; from some pixels, scaled to all."""
        return -self._pixel_weight(mixture) * jnp.sum(mixture.log_prob, axis=(1, 2))

    def _pixel_weight(self, mixture: Mixture) -> float:
        height, width = self.resolution
        return height * width / (mixture.log_prob.shape[1] * mixture.log_prob.shape[2])

    def refine(self, image: Float[Array, "b h w 3"], draws: Noise) -> Refined:
        """Posteriors of images, refined once with each of `[t, b, ...]` draws."""
        frozen = frozen_copy(self)

        def iteration(carry, draw):
            (posterior, state), noise = carry, draw["latents"]
            pixels = self.pixels(image, draw)
            decoded = self.decode(sample(posterior, noise), pixels)
            mixture = Mixture(decoded, pixels.image, self.settings)
            weight = self.settings.gradient_scale * self._pixel_weight(mixture)
            by_decoded = jax.tree.map(lambda x: weight * x, mixture.nll_gradient())

            def paint(posterior):
                return frozen.decode(sample(posterior, noise), pixels), kl(posterior)

            # Nothing is differentiated twice: what this gradient is made of stops gradients.
            (_, divergence), backward = jax.vjp(paint, lax.stop_gradient(posterior))
            by_kl = jnp.full_like(divergence, self.settings.gradient_scale)
            (by_posterior,) = backward(lax.stop_gradient((by_decoded, by_kl)))
            by_posterior = checkpoint_name(lax.stop_gradient(by_posterior), "dzp")
            maps = self.refinement.spatial_inputs(pixels, mixture, by_decoded)
            refined = self.refinement(maps, by_posterior, posterior, state)
            return refined, (posterior, self.nll(mixture))

        again = self.settings.rematerialize
        if again:
            policy = jax.checkpoint_policies.save_only_these_names("dzp")
            iteration = jax.checkpoint(iteration, policy=policy, prevent_cse=False)
        shape = (len(image), self.settings.num_slots, 2 * self.settings.slot_size)
        posterior = jnp.broadcast_to(self.initial_posterior[...], shape)
        first = (posterior, self.refinement.initial_state(len(image)))
        (last, _), (posteriors, nlls) = lax.scan(iteration, first, draws, unroll=not again)
        return Refined(jnp.concatenate([posteriors, last[None]]), nlls)

    def loss(
        self, batch: Batch, noise: Noise, *, step: Step, dropout_key: Array | None = None
    ) -> Loss:
        """The negative ELBO in nats per image, summed over draws with weights from 0 to 1.

        The scalars are of the last draw: `elbo`, `rec_loss` (the log likelihood: higher is better)
        and `kl`.
        """
        del step, dropout_key  # neither schedules nor dropout in this model
        count = self.settings.num_iterations
        draws = by_draw(noise)
        posteriors, nlls = self.refine(batch.image, first_draws(draws, count))
        last = jax.tree.map(lambda x: x[count], draws)

        def explain(posterior: Float[Array, "b k p"]) -> Float[Array, "b"]:
            pixels = self.pixels(batch.image, last)
            decoded = self.decode(sample(posterior, last["latents"]), pixels)
            return self.nll(Mixture(decoded, pixels.image, self.settings))

        nll = explain(posteriors[-1])
        nlls = jnp.concatenate([nlls, nll[None]])
        kls = jnp.sum(kl(posteriors), axis=-1)
        weights = jnp.linspace(0.0, 1.0, count + 1)[:, None]
        loss = jnp.sum(weights * (nlls + kls), axis=0)  # no product, which a GPU would round
        return loss, {"elbo": -(nll + kls[-1]), "rec_loss": -nll, "kl": kls[-1]}

    def predict(self, batch: Batch, noise: Noise, *, step: Step) -> Prediction:
        """Reconstruction, masks and slots, which are the posteriors' means.

        The background is a slot like any other. The `extras`: what the slots paint (`recons`), the
        posteriors' standard deviations (`z_std`), and the slots' `kl` in nats.
        """
        del step  # no schedule acts on the prediction
        draws, count = by_draw(noise), self.settings.num_predict_iterations
        posteriors = self.refine(batch.image, first_draws(draws, count)).posteriors
        mixture = self._explained(batch.image, posteriors[-1], draws["latents"][count])
        mean, variance = mean_and_variance(posteriors[-1])
        return Prediction(
            mixture.recon,
            mixture.masks,
            mean,
            contrast=contrast(mixture.masks, mixture.decoded.colours, self.input_range),
            extras={
                "recons": mixture.decoded.colours,
                "z_std": jnp.sqrt(variance),
                "kl": kl(posteriors[-1]),
            },
        )

    def _explained(
        self, image: Float[Array, "b h w 3"], posterior: Array, noise: Float[Array, "b k z"]
    ) -> Mixture:
        """A draw at every pixel."""
        return Mixture(self.decode(sample(posterior, noise)), image, self.settings)

    def visualize(self, batch: Batch, noise: Noise, *, step: Step) -> dict[str, Array]:
        """The refinement made visible, what each slot paints, a traversal, and prior samples.

        Reconstruction and masks are of a draw from the posteriors before the first iteration and
        after each. Slots are shown on white where their masks are low. The traversal is along the
        dimension of the largest KL of the slot of the largest KL, the other latents being the
        posteriors' means.
        """
        draws, count = by_draw(noise), self.settings.num_predict_iterations
        posteriors = self.refine(batch.image, first_draws(draws, count)).posteriors
        rows: dict[str, Array] = {}
        digits = len(str(count))  # rows are shown in the order of their names
        for t, posterior in enumerate(posteriors):
            mixture = self._explained(batch.image, posterior, draws["latents"][t])
            name = f"iteration {t:0{digits}}"
            rows[name] = jnp.clip(mixture.recon, 0.0, 1.0)
            rows[f"{name} masks"] = 1 + jnp.argmax(mixture.masks, axis=1)
            if t == count:
                masks, colours = mixture.masks[..., None], mixture.decoded.colours
                rows["slots"] = jnp.clip(colours, 0.0, 1.0) * masks + (1.0 - masks)
        for i, value in enumerate(TRAVERSED):
            slots = traversed(posteriors[-1], value)
            rows[f"traversal {i}: {value}"] = self.render(slots, step=step)
        rows["sampled"] = self.render(PRIOR_VARIANCE**0.5 * draws["latents"][0], step=step)
        return rows

    def render(self, slots: Float[Array, "b k z"], *, step: Step) -> Float[Array, "b h w 3"]:
        """The scenes that slots make up."""
        del step
        image = jnp.zeros((len(slots), *self.resolution, 3))  # whatever it was
        return jnp.clip(Mixture(self.decode(slots), image, self.settings).recon, 0.0, 1.0)


def squares_around(
    image: Float[Array, "b h w 3"], rows: Int[Array, "b m"], columns: Int[Array, "b n"], side: int
) -> Float[Array, "b m n i j 3"]:
    """The pixels around those of a lattice; beyond the border the image goes on alike."""
    steps = jnp.arange(side)[None, None] - (side - 1) // 2
    rows, columns = (
        jnp.clip(where[..., None] + steps, 0, length - 1)
        for where, length in ((rows, image.shape[1]), (columns, image.shape[2]))
    )

    def squares(image: Array, rows: Array, columns: Array) -> Array:
        return image[rows[:, None, :, None], columns[None, :, None]]

    return jax.vmap(squares)(image, rows, columns)


def traversed(posterior: Float[Array, "b k p"], value: float) -> Float[Array, "b k z"]:
    """Posterior means, with a value in the dimension that holds most."""
    divergence = kl_per_dimension(posterior)
    slot = jnp.argmax(jnp.sum(divergence, axis=-1), axis=1)
    example = jnp.arange(len(posterior))
    dimension = jnp.argmax(divergence[example, slot], axis=-1)
    mean, _ = mean_and_variance(posterior)
    return mean.at[example, slot, dimension].set(value)


def by_draw(noise: Noise) -> Noise:
    """Noise `[t, b, ...]`, of one draw after the other."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), noise)


def first_draws(draws: Noise, count: int) -> Noise:
    """So many of the draws that `by_draw` gives."""
    return jax.tree.map(lambda x: x[:count], draws)


def frozen_copy(model: IODINE) -> IODINE:
    """The same model, through whose parameters no gradient flows."""
    graphdef, params = nnx.split(model)
    return nnx.merge(graphdef, lax.stop_gradient(params))
