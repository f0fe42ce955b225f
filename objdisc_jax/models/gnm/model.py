"""GNM: generative neurosymbolic machines (Jiang & Ahn 2020, arXiv 2010.12152)."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from objdisc_jax.models.base import Model, Noise, Prediction
from objdisc_jax.models.gnm.boxes import draw_boxes, to_boxes
from objdisc_jax.models.gnm.distributions import Normal, uniform_noise
from objdisc_jax.models.gnm.local_latents import LocalLatentNet, LocalLatents, to_transform
from objdisc_jax.models.gnm.layers import NormedConvs, NormedMLP, SubPixelStack
from objdisc_jax.models.gnm.glimpses import Scene, compose
from objdisc_jax.models.gnm.scene_latents import (
    AuxiliaryPriors,
    SceneLatents,
    kl_terms,
    log_prior_ratio,
    sum_over_example,
)
from objdisc_jax.nn.schedules import Ramp, annealed
from objdisc_jax.models.gnm.struct_draw import StructDRAW


def default_config() -> ConfigDict:
    """The published 128x128 model; every key is an argument of `GNM`.

    What is annealed is given as (first value, last value, first step, last step), a straight line
    between the two steps.
    """
    config = ConfigDict()
    config.name = "gnm"
    config.resolution = (128, 128)  # height and width that images are resized to: a square
    config.grid = (4, 4)  # rows and columns of cells, a possible object each
    config.encoder_channels = (16, 16, 32, 32, 64, 64, 128, 128, 128)  # one entry a convolution
    config.encoder_kernels = (4, 3, 4, 3, 4, 3, 4, 3, 4)  # sides of their kernels
    config.encoder_strides = (2, 1, 2, 1, 2, 1, 2, 1, 2)  # their strides: resolution to grid
    config.draw_steps = 4  # steps in which StructDRAW draws the global code
    config.global_size = 32  # size of the global latent of each step
    config.global_hidden = (512, 512)  # hidden layers of its prior and its posterior
    config.global_decoder_hidden = (512, 1024)  # hidden layers from it to the grid
    config.local_channels = (128, 128)  # layers from a cell's features to its latents
    config.what_size = 64  # size of z_what, a glimpse's appearance
    config.initial_size = -1.0  # raw size of all glimpses at first; σ of it is a part of the image
    config.glimpse_channels = (128, 64, 32, 16, 8)  # layers that draw it, all but the last
    config.glimpse_upscales = (2, 2, 2, 2, 2, 2)  # enlargements; their product is its side
    config.background_size = 10  # size of z_bg
    config.background_hidden = (512, 256)  # hidden layers of its posterior
    config.background_prior_hidden = (128, 64)  # hidden layers of its prior
    config.background_channels = (128, 64, 32, 16, 8)  # layers that draw it, all but the last
    config.background_kernels = (1, 1, 1, 1, 1, 3)  # sides of their kernels
    config.background_upscales = (4, 2, 4, 2, 2, 1)  # enlargements, 1 pixel to the whole side
    config.sigma = 0.2  # standard deviation of a pixel around the rendered image
    config.temperature = (1.0, 0.5, 1000, 20_000)  # of the relaxed presence
    config.early_steps = 500  # so long, for rendering, presence and coverage are held down
    config.early_pres = 0.99  # largest presence until then
    config.early_alpha = 0.9  # what the foreground is taken to cover until then
    # Auxiliary priors, fixed, beside the learned ones; depth, what and background: N(0, 1).
    config.aux_pres = (0.1, 0.001, 0, 4000)  # probability of presence
    config.aux_where_mean = (-1.5, 0.0, 0.0, 0.0)  # raw size, ratio of height to width, x, y
    config.aux_where_std = (0.1, 0.3, 1.0, 1.0)  # their standard deviations
    # Weights of the KL terms: to the learned priors, then to the auxiliary ones.
    config.beta_pres = 1.0
    config.beta_where = 1.0
    config.beta_depth = 1.0
    config.beta_what = 1.0
    config.beta_bg = 1.0
    config.beta_global = (0.0, 1.0, 0, 100_000)
    config.beta_aux_pres = 1.0
    config.beta_aux_where = (10.0, 1.0, 0, 500)
    config.beta_aux_depth = 1.0
    config.beta_aux_what = 1.0
    config.beta_aux_bg = (50.0, 1.0, 0, 50_000)
    config.dtype = "float32"  # compute type: float32 | bfloat16
    return config


LOCAL = ("pres", "where", "depth", "what")
COUNTS = ("draw_steps", "global_size", "what_size", "background_size")
LAYERS = (
    "resolution",
    "grid",
    "encoder_channels",
    "encoder_kernels",
    "encoder_strides",
    "global_hidden",
    "global_decoder_hidden",
    "local_channels",
    "glimpse_channels",
    "glimpse_upscales",
    "background_hidden",
    "background_prior_hidden",
    "background_channels",
    "background_kernels",
    "background_upscales",
)
RAMPS = ("temperature", "aux_pres", "beta_global", "beta_aux_where", "beta_aux_bg")
"""Settings that are annealed."""


class GNM(Model):
    """A scene as a grid of glimpses over a background, with a learned prior of whole scenes.

    The arguments are the keys of `default_config`. Predictions take the means of all latents; the
    loss samples them.

    Raises:
        ValueError: a setting is out of its range or two contradict each other; names them.
    """

    input_range = (0.0, 1.0)

    def __init__(
        self,
        *,
        resolution: tuple[int, int],
        grid: tuple[int, int],
        encoder_channels: tuple[int, ...],
        encoder_kernels: tuple[int, ...],
        encoder_strides: tuple[int, ...],
        draw_steps: int,
        global_size: int,
        global_hidden: tuple[int, ...],
        global_decoder_hidden: tuple[int, ...],
        local_channels: tuple[int, ...],
        what_size: int,
        initial_size: float,
        glimpse_channels: tuple[int, ...],
        glimpse_upscales: tuple[int, ...],
        background_size: int,
        background_hidden: tuple[int, ...],
        background_prior_hidden: tuple[int, ...],
        background_channels: tuple[int, ...],
        background_kernels: tuple[int, ...],
        background_upscales: tuple[int, ...],
        sigma: float,
        temperature: Ramp,
        early_steps: int,
        early_pres: float,
        early_alpha: float,
        aux_pres: Ramp,
        aux_where_mean: tuple[float, float, float, float],
        aux_where_std: tuple[float, float, float, float],
        beta_pres: float,
        beta_where: float,
        beta_depth: float,
        beta_what: float,
        beta_bg: float,
        beta_global: Ramp,
        beta_aux_pres: float,
        beta_aux_where: Ramp,
        beta_aux_depth: float,
        beta_aux_what: float,
        beta_aux_bg: Ramp,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        settings = {**locals()}
        del settings["self"], settings["rngs"]
        check_settings(settings)
        self.resolution = (resolution[0], resolution[1])
        self.grid = (grid[0], grid[1])
        self.sigma = sigma
        self.temperature = as_ramp("temperature", temperature)
        self.early = (early_steps, early_pres, early_alpha)
        self.aux_pres = as_ramp("aux_pres", aux_pres)
        self.aux_where = (tuple(aux_where_mean), tuple(aux_where_std))
        self.betas = (
            ("pres", beta_pres),
            ("aux_pres", beta_aux_pres),
            ("where", beta_where),
            ("aux_where", as_ramp("beta_aux_where", beta_aux_where)),
            ("what", beta_what),
            ("aux_what", beta_aux_what),
            ("depth", beta_depth),
            ("aux_depth", beta_aux_depth),
            ("bg", beta_bg),
            ("aux_bg", as_ramp("beta_aux_bg", beta_aux_bg)),
            ("global", as_ramp("beta_global", beta_global)),
        )
        dtype = jnp.dtype(dtype)
        features = encoder_channels[-1]
        cells = self.grid[0] * self.grid[1]
        self.encoder = NormedConvs(
            3, encoder_channels, encoder_kernels, encoder_strides, dtype=dtype, rngs=rngs
        )
        self.struct_draw = StructDRAW(
            features,
            grid=self.grid,
            num_steps=draw_steps,
            latent_size=global_size,
            hidden=global_hidden,
            decoder_hidden=global_decoder_hidden,
            dtype=dtype,
            rngs=rngs,
        )
        self.local_net = LocalLatentNet(
            features,
            features=local_channels,
            what_size=what_size,
            initial_size=initial_size,
            dtype=dtype,
            rngs=rngs,
        )
        self.glimpse_decoder = SubPixelStack(
            what_size,
            (*glimpse_channels, 4),
            (3,) * len(glimpse_upscales),
            glimpse_upscales,
            dtype=dtype,
            rngs=rngs,
        )
        sizes = (features * cells, *background_hidden, 2 * background_size)
        self.bg_posterior = NormedMLP(sizes, dtype=dtype, rngs=rngs)
        sizes = (draw_steps * global_size, *background_prior_hidden, 2 * background_size)
        self.bg_prior = NormedMLP(sizes, dtype=dtype, rngs=rngs)
        self.bg_decoder = SubPixelStack(
            background_size,
            (*background_channels, 3),
            background_kernels,
            background_upscales,
            dtype=dtype,
            rngs=rngs,
        )
        self.what_size, self.bg_size = what_size, background_size

    def noise(self, key: Array, batch_size: int) -> Noise:
        """Uniform noise of presence; standard normals of all other latents."""
        cells = self.grid[0] * self.grid[1]
        draw = self.struct_draw
        sizes = {
            "global": (draw.num_steps, draw.latent_size),
            "pres": (cells, 1),
            "where": (cells, 4),
            "depth": (cells, 1),
            "what": (cells, self.what_size),
            "background": (self.bg_size,),
        }
        keys = jax.random.split(key, len(sizes))
        return {
            name: (uniform_noise if name == "pres" else jax.random.normal)(k, (batch_size, *size))
            for k, (name, size) in zip(keys, sizes.items(), strict=True)
        }

    def infer(
        self,
        image: Float[Array, "b h w 3"] | None,
        noise: Noise,
        step: Int[Array, ""],
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
        p_local = q_local = self.local_net(code.code)
        p_bg = q_bg = Normal.from_features(self.bg_prior(rearrange(code.z, "b t d -> b (t d)")))
        if encoded is not None and not from_code:
            q_local = self.local_net(encoded)
            flat = rearrange(encoded, "b h w c -> b (c h w)")
            q_bg = Normal.from_features(self.bg_posterior(flat))
        local_noise = LocalLatents(**{name: noise[name] for name in LOCAL})
        return SceneLatents(
            code=code,
            local=q_local.sample(local_noise, annealed(step, self.temperature)),
            bg=q_bg.sample(noise["background"]),
            p_local=p_local,
            q_local=q_local,
            p_bg=p_bg,
            q_bg=q_bg,
        )

    def glimpses(self, what: Float[Array, "b k d"]) -> Float[Array, "b k p q 4"]:
        """Colours and opacity of glimpses, in [0, 1], float32."""
        x = self.glimpse_decoder(rearrange(what, "b k d -> (b k) 1 1 d"))
        x = jax.nn.sigmoid(x.astype(jnp.float32))
        return rearrange(x, "(b k) p q c -> b k p q c", b=len(what))

    def background(self, bg: Float[Array, "b d"]) -> Float[Array, "b h w 3"]:
        """Backgrounds, in [0, 1], float32."""
        x = self.bg_decoder(rearrange(bg, "b d -> b 1 1 d"))
        return jax.nn.sigmoid(x.astype(jnp.float32))

    def render(self, latents: SceneLatents, step: Int[Array, ""]) -> Scene:
        """The scene that latents describe."""
        last, largest, alpha = self.early
        is_early = (step > 0) & (step < last)
        pres = latents.local.pres[..., 0]
        pres = jnp.where(is_early, jnp.minimum(pres, largest), pres)
        return compose(
            self.glimpses(latents.local.what),
            pres,
            latents.local.depth[..., 0],
            to_transform(latents.local.where, self.grid),
            self.background(latents.bg),
            fixed_alpha=alpha,
            is_early=is_early,
        )

    def kl_terms(self, latents: SceneLatents, step: Int[Array, ""]) -> dict[str, Float[Array, "b"]]:
        """Every KL term times its weight, in nats an image."""
        mean, std = (jnp.asarray(values) for values in self.aux_where)
        priors = AuxiliaryPriors(pres=annealed(step, self.aux_pres), where=Normal(mean, std))
        terms = kl_terms(latents, priors)
        return {f"kl_{name}": annealed(step, beta) * terms[name] for name, beta in self.betas}

    def loss(
        self,
        image: Float[Array, "b h w 3"],
        noise: Noise,
        *,
        step: Int[Array, ""],
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "b"], dict[str, Float[Array, "b"]]]:
        """The negative ELBO in nats an image, summed over pixels and channels.

        The scalars are `elbo`, `rec_loss` (the log likelihood: higher is better), `kl` and its
        parts, all but `rec_loss` with the weights of the step.
        """
        del dropout_key  # no dropout in this model
        latents = self.infer(image, noise, step)
        kls = self.kl_terms(latents, step)
        rec_loss = self.pixel_log_prob(self.render(latents, step).image, image)
        kl = sum(kls.values(), start=jnp.zeros_like(rec_loss))
        elbo = rec_loss - kl
        return -elbo, {"elbo": elbo, "rec_loss": rec_loss, "kl": kl, **kls}

    def pixel_log_prob(
        self, recon: Float[Array, "b h w 3"], image: Float[Array, "b h w 3"]
    ) -> Float[Array, "b"]:
        """Log density of images around rendered ones, in nats an image."""
        return sum_over_example(Normal(recon, jnp.float32(self.sigma)).log_prob(image))

    def predict(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Int[Array, ""]
    ) -> Prediction:
        """Reconstruction, masks and latents of images; the means of all latents, not a draw.

        The last mask is the background. `slots` are the cells' (what, raw where, depth, pres). The
        `extras`: `boxes` in pixels (top, bottom, left, right), `z_pres`, `z_depth`,
        `foreground` on black and `background`.
        """
        latents = self.infer(image, without_noise(noise), step)
        scene = self.render(latents, step)
        local = latents.local
        z_pres = local.pres[..., 0]
        uncovered = jnp.maximum(1.0 - jnp.sum(scene.masks, axis=1, keepdims=True), 0.0)
        masks = jnp.concatenate([scene.masks, uncovered], axis=1)
        return Prediction(
            recon=scene.image,
            masks=masks / jnp.sum(masks, axis=1, keepdims=True),
            slots=jnp.concatenate([local.what, local.where, local.depth, local.pres], axis=-1),
            background=self.grid[0] * self.grid[1],
            count=jnp.sum(jnp.round(z_pres), axis=1).astype(jnp.int32),
            extras={
                "boxes": to_boxes(to_transform(local.where, self.grid), self.resolution),
                "z_pres": z_pres,
                "z_depth": local.depth[..., 0],
                "foreground": scene.foreground,
                "background": scene.background,
            },
        )

    def panels(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Int[Array, ""]
    ) -> dict[str, Array]:
        """Boxes, background, foreground, the cells' glimpses, and scenes sampled from the prior.

        Boxes are green where an object is present and red where not. Glimpses are shown on white
        where they are transparent, at their own resolution.
        """
        prediction = self.predict(image, noise, step=step)
        extras, z_pres = prediction.extras, prediction.extras["z_pres"]
        glimpses = self.glimpses(prediction.slots[..., : self.what_size])
        opacity = glimpses[..., 3:] * z_pres[..., None, None, None]
        return {
            "boxes": draw_boxes(image, extras["boxes"], z_pres > 0.5),
            "background": extras["background"],
            "foreground": jnp.clip(extras["foreground"], 0.0, 1.0),
            "from global code": jnp.clip(
                self.reconstruct_from_global(image, without_noise(noise), step=step), 0.0, 1.0
            ),
            "glimpse": glimpses[..., :3] * opacity + (1.0 - opacity),
            "sampled": jnp.clip(self.sample(noise, step=step), 0.0, 1.0),
        }

    def reconstruct_from_global(
        self, image: Float[Array, "b h w 3"], noise: Noise, *, step: Int[Array, ""]
    ) -> Float[Array, "b h w 3"]:
        """What the learned prior makes of an image's global code: its cells and background anew."""
        return self.render(self.infer(image, noise, step, from_code=True), step).image

    def sample(
        self, noise: Noise, *, step: Int[Array, ""], temperature: float = 1.0
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
        return self.render(self.infer(None, cooled, step), step).image

    def log_likelihood(
        self,
        image: Float[Array, "b h w 3"],
        key: Array,
        *,
        step: Int[Array, ""],
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
        temperature = annealed(step, self.temperature)

        def log_weight(key: Array) -> Float[Array, "b"]:
            noise = self.noise(key, len(image))
            latents = self.infer(image, noise, step)
            pres_logits = latents.q_local.pres.sample_logits(noise["pres"], temperature)
            ratio = log_prior_ratio(latents, pres_logits, temperature)
            return self.pixel_log_prob(self.render(latents, step).image, image) + ratio

        log_weights = lax.map(log_weight, jax.random.split(key, num_samples))
        return jax.nn.logsumexp(log_weights, axis=0) - math.log(num_samples)


def as_ramp(key: str, values: Sequence[float]) -> Ramp:
    """The four numbers of an annealed setting, which may be a list."""
    if not isinstance(values, Sequence) or len(values) != 4:
        shown = tuple(values) if isinstance(values, Sequence) else values
        raise ValueError(
            f"model.{key}: got {shown}; it is (first value, last value, first step, last "
            "step). The same value twice keeps it constant: (1.0, 1.0, 0, 1)."
        )
    first, last, start, end = values
    return first, last, int(start), int(end)


def check_settings(settings: dict[str, Any]) -> None:
    """Refuses layers that do not fit together, and values out of range.

    Raises:
        ValueError: names the setting.
    """

    def refuse_unless(fits: bool, key: str, allowed: str) -> None:
        if not fits:
            value = settings[key]
            shown = tuple(value) if isinstance(value, Sequence) else value
            raise ValueError(f"model.{key}: got {shown}; {allowed}.")

    def same_length(layers: str, *others: str, more: int = 0) -> None:
        wanted = len(settings[layers]) + more
        for key in others:
            if len(settings[key]) != wanted:
                raise ValueError(
                    f"model.{key}: got {len(settings[key])} layers, {tuple(settings[key])}; "
                    f"model.{layers} {tuple(settings[layers])} asks for {wanted}."
                )

    if str(settings["dtype"]) not in ("float32", "bfloat16"):
        raise ValueError(f"model.dtype: got {settings['dtype']!r}; allowed are float32, bfloat16.")
    for key in ("resolution", "grid"):
        refuse_unless(len(settings[key]) == 2, key, "it is a height and a width")
    for key in COUNTS:
        refuse_unless(settings[key] >= 1, key, "it must be at least 1")
    for key in LAYERS:
        refuse_unless(all(n >= 1 for n in settings[key]), key, "every number must be at least 1")
    for key in ("encoder_channels", "local_channels"):
        refuse_unless(len(settings[key]) >= 1, key, "there must be at least one layer")
    same_length("encoder_channels", "encoder_kernels", "encoder_strides")
    same_length("glimpse_channels", "glimpse_upscales", more=1)
    same_length("background_channels", "background_kernels", "background_upscales", more=1)
    for key in ("aux_where_mean", "aux_where_std"):
        refuse_unless(len(settings[key]) == 4, key, "it has four numbers: size, ratio, x, y")
    refuse_unless(settings["sigma"] > 0.0, "sigma", "standard deviations are positive")
    positive = min(settings["aux_where_std"]) > 0.0
    refuse_unless(positive, "aux_where_std", "standard deviations are positive")
    for key in RAMPS:
        as_ramp(key, settings[key])
    for key, value in settings.items():
        if key.startswith("beta_") and key not in RAMPS:
            is_number = not isinstance(value, Sequence)
            refuse_unless(is_number, key, f"it is one number; annealed are {', '.join(RAMPS)}")
    refuse_unless(
        min(settings["temperature"][:2]) > 0.0, "temperature", "its values must be above 0"
    )
    for key, values in (
        ("aux_pres", settings["aux_pres"][:2]),
        ("early_pres", [settings["early_pres"]]),
        ("early_alpha", [settings["early_alpha"]]),
    ):
        refuse_unless(all(0.0 <= x <= 1.0 for x in values), key, "it lies from 0 to 1")
    height, width = settings["resolution"]
    for stride in settings["encoder_strides"]:
        height, width = -(-height // stride), -(-width // stride)
    if (height, width) != tuple(settings["grid"]):
        raise ValueError(
            f"model.grid: got {tuple(settings['grid'])}, but model.encoder_strides bring model."
            f"resolution {tuple(settings['resolution'])} to {(height, width)}; change one of them."
        )
    side = math.prod(settings["background_upscales"])
    if tuple(settings["resolution"]) != (side, side):
        raise ValueError(
            f"model.background_upscales: {tuple(settings['background_upscales'])} make a "
            f"background of {side}x{side} pixels, but model.resolution is "
            f"{tuple(settings['resolution'])}; their product must be its height and its width."
        )


def without_noise(noise: Noise) -> Noise:
    """The noise that makes every draw the mean, and presence its own probability's side of 1/2."""
    return {name: jnp.full(x.shape, 0.5 * (name == "pres")) for name, x in noise.items()}
