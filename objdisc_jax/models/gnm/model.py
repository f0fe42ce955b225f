"""GNM: generative neurosymbolic machines (Jiang & Ahn 2020, arXiv 2010.12152)."""

import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from objdisc_jax.models.base import Batch, Loss, Model, Noise, Prediction, Step
from objdisc_jax.models.gnm.boxes import draw_boxes, from_boxes, to_boxes
from objdisc_jax.models.gnm.distributions import Normal, uniform_noise
from objdisc_jax.models.gnm.glimpses import Scene, compose
from objdisc_jax.models.gnm.layers import NormedConvs, NormedMLP, SubPixelStack
from objdisc_jax.models.gnm.local_latents import (
    LocalDistributions,
    LocalLatentNet,
    LocalLatents,
    to_transform,
)
from objdisc_jax.models.gnm.scene_latents import (
    AuxiliaryPriors,
    SceneLatents,
    kl_terms,
    log_prior_ratio,
    sum_over_example,
)
from objdisc_jax.models.gnm.settings import Settings
from objdisc_jax.models.gnm.struct_draw import StructDRAW
from objdisc_jax.nn.schedules import annealed

LOCAL = ("pres", "where", "depth", "what")


class GNM(Model):
    """A scene as a grid of glimpses over a background, with a learned prior of whole scenes.

    Predictions take the means of all latents; the loss samples them.
    """

    input_range = (0.0, 1.0)
    settings: Settings

    def __init__(self, settings: Settings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        dtype, features = jnp.dtype(settings.dtype), settings.encoder_channels[-1]

        def mlp(*sizes: int) -> NormedMLP:
            return NormedMLP(sizes, dtype=dtype, rngs=rngs)

        self.encoder = NormedConvs(
            3,
            settings.encoder_channels,
            settings.encoder_kernels,
            settings.encoder_strides,
            dtype=dtype,
            rngs=rngs,
        )
        self.struct_draw = StructDRAW(settings, rngs=rngs)
        self.local_net = LocalLatentNet(settings, rngs=rngs)
        self.glimpse_decoder = SubPixelStack(
            settings.what_size,
            (*settings.glimpse_channels, 4),
            settings.glimpse_kernels,
            settings.glimpse_upscales,
            dtype=dtype,
            rngs=rngs,
        )
        parameters = 2 * settings.background_size
        image_size = features * settings.num_cells
        self.bg_posterior = mlp(image_size, *settings.background_hidden, parameters)
        code_size = settings.draw_steps * settings.global_size
        self.bg_prior = mlp(code_size, *settings.background_prior_hidden, parameters)
        self.bg_decoder = SubPixelStack(
            settings.background_size,
            (*settings.background_channels, 3),
            settings.background_kernels,
            settings.background_upscales,
            dtype=dtype,
            rngs=rngs,
        )

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Uniform noise of presence; standard normals of all other latents."""
        sizes = self.settings.noise_sizes
        keys = jax.random.split(key, len(sizes))
        return {
            name: (uniform_noise if name == "pres" else jax.random.normal)(k, (batch_size, *size))
            for k, (name, size) in zip(keys, sizes.items(), strict=True)
        }

    def infer(
        self,
        image: Float[Array, "b h w 3"] | None,
        noise: Noise,
        step: Step,
        *,
        from_code: bool = False,
    ) -> SceneLatents:
        """Draws the latents of images from the posterior, or of new scenes from the prior.

        Args:
            image: in [0, 1]; None draws from the prior.
            noise: what `noise` drew.
            step: the training step, which sets the temperature.
            from_code: draw only the global code from the posterior, the rest from the prior.
        """
        encoded = None if image is None else self.encoder(image)
        code = self.struct_draw(encoded, noise["global"])
        if encoded is None or from_code:
            p_local = q_local = self.local_net(code.code)
        else:  # the network's gradients are summed once
            p_local, q_local = self._local(code.code, encoded)
        p_bg = q_bg = Normal.from_features(self.bg_prior(rearrange(code.z, "b t d -> b (t d)")))
        if encoded is not None and not from_code:
            flat = rearrange(encoded, "b h w c -> b (c h w)")
            q_bg = Normal.from_features(self.bg_posterior(flat))
        local_noise = LocalLatents(**{name: noise[name] for name in LOCAL})
        return SceneLatents(
            code=code,
            local=q_local.sample(local_noise, annealed(step, self.settings.temperature)),
            bg=q_bg.sample(noise["background"]),
            p_local=p_local,
            q_local=q_local,
            p_bg=p_bg,
            q_bg=q_bg,
        )

    def _local(self, *features: Float[Array, "b h w c"]) -> list[LocalDistributions]:
        """Distributions of the cells' latents from each of several maps, computed together."""
        together = rearrange(jnp.stack(features, axis=1), "b n h w c -> (b n) h w c")
        found = self.local_net(together)
        count = len(features)
        apart = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), found)
        return [jax.tree.map(lambda x, i=i: x[:, i], apart) for i in range(count)]

    def glimpses(self, what: Float[Array, "b k d"]) -> Float[Array, "b k p q 4"]:
        """Colours and opacity of glimpses, in [0, 1], float32."""
        x = self.glimpse_decoder(rearrange(what, "b k d -> (b k) 1 1 d"))
        x = jax.nn.sigmoid(x.astype(jnp.float32))
        return rearrange(x, "(b k) p q c -> b k p q c", b=len(what))

    def background(self, bg: Float[Array, "b d"]) -> Float[Array, "b h w 3"]:
        """Backgrounds, in [0, 1], float32."""
        x = self.bg_decoder(rearrange(bg, "b d -> b 1 1 d"))
        return jax.nn.sigmoid(x.astype(jnp.float32))

    def decode_image(self, latents: SceneLatents, step: Step) -> Scene:
        """The scene that latents describe."""
        slots = to_slots(latents.local, self.settings.grid)
        return self._compose(slots, self.background(latents.bg), step)

    def _compose(
        self, slots: Float[Array, "b k d"], background: Float[Array, "b h w 3"], step: Step
    ) -> Scene:
        settings = self.settings
        size = settings.what_size
        what, where, depth, pres = jnp.split(slots, [size, size + 4, size + 5], axis=-1)
        is_early = (step > 0) & (step < settings.early_steps)
        pres = jnp.where(is_early, jnp.minimum(pres, settings.early_pres), pres)
        return compose(
            self.glimpses(what),
            pres[..., 0],
            depth[..., 0],
            where,
            background,
            fixed_alpha=settings.early_alpha,
            is_early=is_early,
        )

    def render(
        self,
        slots: Float[Array, "b k d"],
        *,
        step: Step,
        boxes: Float[Array, "b k 4"] | None = None,
        background: Float[Array, "b h w 3"] | None = None,
    ) -> Float[Array, "b h w 3"]:
        """Scenes of cells' slots, such as `predict` finds, of any number and in any order.

        Args:
            slots: what is drawn: fewer hide objects, repeated ones are copies.
            step: the training step.
            boxes: where it is drawn, in pixels, as the `boxes` of `predict`; None: where it was
                found.
            background: what is behind, in [0, 1], as the `background` of `predict`; None is black.
        """
        if boxes is not None:
            size = self.settings.what_size
            where = from_boxes(boxes, self.resolution)
            slots = jnp.concatenate([slots[..., :size], where, slots[..., size + 4 :]], axis=-1)
        if background is None:
            background = jnp.zeros((len(slots), *self.resolution, 3))
        return self._compose(slots, background, step).image

    def kl_terms(self, latents: SceneLatents, step: Step) -> dict[str, Float[Array, "b"]]:
        """Every KL term times its weight, in nats per image."""
        settings = self.settings
        mean, std = settings.aux_where_mean, settings.aux_where_std
        where = Normal(*(jnp.asarray(values)[None, None] for values in (mean, std)))
        priors = AuxiliaryPriors(pres=annealed(step, settings.aux_pres), where=where)
        return {
            f"kl_{name}": annealed(step, getattr(settings, f"beta_{name}")) * term
            for name, term in kl_terms(latents, priors).items()
        }

    def loss(
        self, batch: Batch, noise: Noise, *, step: Step, dropout_key: Array | None = None
    ) -> Loss:
        """The negative ELBO in nats per image, summed over pixels and channels.

        The scalars are `elbo`, `rec_loss` (the log likelihood: higher is better), `kl` and its
        parts, all but `rec_loss` with the weights of the step.
        """
        del dropout_key  # no dropout in this model
        latents = self.infer(batch.image, noise, step)
        kls = self.kl_terms(latents, step)
        rec_loss = self.pixel_log_prob(self.decode_image(latents, step).image, batch.image)
        kl = sum(kls.values(), start=jnp.zeros_like(rec_loss))
        elbo = rec_loss - kl
        return -elbo, {"elbo": elbo, "rec_loss": rec_loss, "kl": kl, **kls}

    def pixel_log_prob(
        self, recon: Float[Array, "b h w 3"], image: Float[Array, "b h w 3"]
    ) -> Float[Array, "b"]:
        """Log density of images around decoded ones, in nats per image."""
        return sum_over_example(Normal(recon, jnp.float32(self.settings.sigma)).log_prob(image))

    def predict(self, batch: Batch, noise: Noise, *, step: Step) -> Prediction:
        """Reconstruction, masks and latents of images; the means of all latents, not a draw.

        The last mask is the background. `slots` are the cells' (what, z_where, depth, pres), which
        `render` draws in any order. The `extras`: `boxes` in pixels (top, bottom, left, right),
        `z_pres`, `z_depth`, `foreground` on black and `background`.
        """
        latents = self.infer(batch.image, without_noise(noise), step)
        scene = self.decode_image(latents, step)
        local = latents.local
        z_pres = local.pres[..., 0]
        uncovered = jnp.maximum(1.0 - jnp.sum(scene.masks, axis=1, keepdims=True), 0.0)
        masks = jnp.concatenate([scene.masks, uncovered], axis=1)
        return Prediction(
            recon=scene.image,
            masks=masks / jnp.sum(masks, axis=1, keepdims=True),
            slots=to_slots(local, self.settings.grid),
            background=self.settings.num_cells,
            count=jnp.sum(jnp.round(z_pres), axis=1).astype(jnp.int32),
            extras={
                "boxes": to_boxes(to_transform(local.where, self.settings.grid), self.resolution),
                "z_pres": z_pres,
                "z_depth": local.depth[..., 0],
                "foreground": scene.foreground,
                "background": scene.background,
            },
        )

    def visualize(self, batch: Batch, noise: Noise, *, step: Step) -> dict[str, Array]:
        """Boxes, background, foreground, the cells' glimpses, and scenes sampled from the prior.

        Boxes are green where an object is present and red where not. Glimpses are shown on white
        where they are transparent, at their own resolution.
        """
        prediction = self.predict(batch, noise, step=step)
        extras, z_pres = prediction.extras, prediction.extras["z_pres"]
        glimpses = self.glimpses(prediction.slots[..., : self.settings.what_size])
        opacity = glimpses[..., 3:] * z_pres[..., None, None, None]
        return {
            "boxes": draw_boxes(batch.image, extras["boxes"], z_pres > 0.5),
            "background": extras["background"],
            "foreground": jnp.clip(extras["foreground"], 0.0, 1.0),
            "from global code": jnp.clip(
                self.reconstruct_from_global(batch.image, without_noise(noise), step=step), 0.0, 1.0
            ),
            "glimpse": glimpses[..., :3] * opacity + (1.0 - opacity),
            "sampled": jnp.clip(self.sample(noise, step=step), 0.0, 1.0),
        }

    def reconstruct_from_global(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Step
    ) -> Float[Array, "b h w 3"]:
        """What the learned prior makes of an image's global code: its cells and background anew."""
        return self.decode_image(self.infer(image, noise, step, from_code=True), step).image

    def sample(
        self, noise: Noise, *, step: Step, temperature: float = 1.0
    ) -> Float[Array, "b h w 3"]:
        """New scenes from the prior, `[b, h, w, 3]` in [0, 1].

        Args:
            noise: what `noise` drew: its key is the seed.
            step: the training step.
            temperature: factor of all noise; 0 gives the most typical scene, b times.
        """
        cooled = {name: temperature * x for name, x in noise.items() if name != "pres"}
        odds = temperature * (jnp.log(noise["pres"]) - jnp.log1p(-noise["pres"]))
        cooled["pres"] = jax.nn.sigmoid(odds)
        return self.decode_image(self.infer(None, cooled, step), step).image

    def log_likelihood(
        self,
        image: Float[Array, "b h w 3"],
        key: Array,
        *,
        step: Step,
        num_samples: int = 100,
    ) -> Float[Array, "b"]:
        """Importance-weighted estimate of log p(image) in nats (Burda et al. 2016).

        A lower bound in expectation, the tighter the more samples; of the model without the
        auxiliary priors, and with presence relaxed at the step's temperature.

        Args:
            image: in [0, 1].
            key: fixes the draws.
            step: the training step.
            num_samples: draws from the posterior, one after the other.

        Raises:
            ValueError: there is no sample.
        """
        if num_samples < 1:
            raise ValueError(f"num_samples: got {num_samples}; it must be at least 1.")
        temperature = annealed(step, self.settings.temperature)

        def log_weight(key: Array) -> Float[Array, "b"]:
            noise = self.noise(key, len(image))
            latents = self.infer(image, noise, step)
            pres_logits = latents.q_local.pres.sample_logits(noise["pres"], temperature)
            ratio = log_prior_ratio(latents, pres_logits, temperature)
            return self.pixel_log_prob(self.decode_image(latents, step).image, image) + ratio

        log_weights = lax.map(log_weight, jax.random.split(key, num_samples))
        return jax.nn.logsumexp(log_weights, axis=0) - math.log(num_samples)


def to_slots(local: LocalLatents, grid: tuple[int, int]) -> Float[Array, "b k d"]:
    """Everything that is drawn of each cell: what, z_where, depth and pres."""
    where = to_transform(local.where, grid)
    return jnp.concatenate([local.what, where, local.depth, local.pres], axis=-1)


def without_noise(noise: Noise) -> Noise:
    """The noise that makes every draw the mean, and presence its own probability's side of 1/2."""
    return {name: jnp.full(x.shape, 0.5 * (name == "pres")) for name, x in noise.items()}
