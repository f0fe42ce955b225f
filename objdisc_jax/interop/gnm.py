"""GNM in PyTorch, with the published weights' keys and shapes."""

from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from objdisc_jax.interop.base import Noise, Prediction, TorchModel
from objdisc_jax.interop.glimpses import EPSILON, Scene, compose
from objdisc_jax.interop.scene_latents import (
    LOCAL,
    BackgroundDecoder,
    BackgroundPosterior,
    BackgroundPrior,
    LocalDistributions,
    LocalLatentNet,
    LocalLatentSampler,
)
from objdisc_jax.interop.schedules import linear_ramp
from objdisc_jax.interop.stacks import NormedConvs
from objdisc_jax.interop.struct_draw import GlobalCode, StructDRAW
from objdisc_jax.models.gnm.settings import Settings

TRAINED = 2**31 - 1
"""A step at which everything annealed has its last value."""
PUBLISHED_BETAS = ("pres", "where", "depth", "what", "bg", "aux_pres", "aux_depth", "aux_what")


class Latents(NamedTuple):
    """One draw of everything that makes up scenes, and what it was drawn from."""

    code: GlobalCode
    local: dict[str, Tensor]
    bg: Tensor
    p_local: LocalDistributions
    q_local: LocalDistributions
    p_bg: Normal
    q_bg: Normal


class GNM(TorchModel):
    """A scene as a grid of glimpses over a background, with a learned prior of whole scenes."""

    input_range = (0.0, 1.0)
    annealed = ("aux_p_pres_probs",)
    names = (
        (r"img_encoder\.conv\.\d+", "encoder.{kind}.{n}"),
        (r"global_struct_draw\.p_global_decoder_net\.mlp\.\d+", "struct_draw.z_decoder.{kind}.{n}"),
        (r"global_struct_draw\.p_global_net\.mlp\.\d+", "struct_draw.prior_net.{kind}.{n}"),
        (r"global_struct_draw\.q_global_net\.mlp\.\d+", "struct_draw.posterior_net.{kind}.{n}"),
        (r"global_struct_draw\.rnn_enc(.*)", r"struct_draw.encoder_lstm\1"),
        (r"global_struct_draw\.rnn_dec(.*)", r"struct_draw.decoder_lstm\1"),
        (r"global_struct_draw\.hid_to_dec_net\.conv\.0", "struct_draw.to_canvas"),
        (r"p_z_given_x_or_g_net\.pwdw_net\.conv\.\d+", "local_net.trunk.{kind}.{n}"),
        (r"p_z_given_x_or_g_net\.q_(\w+)_net", r"local_net.\1"),
        (r"local_latent_sampler\.z_what_decoder_net\.conv\.\d+", "glimpse_decoder.{kind}.{n}"),
        (r"p_bg_decoder\.p_bg_decoder\.conv\.\d+", "bg_decoder.{kind}.{n}"),
        (r"p_bg_given_g_net\.p_bg_generator\.mlp\.\d+", "bg_prior.{kind}.{n}"),
        (r"q_bg_given_x_net\.p_bg_encoder\.mlp\.\d+", "bg_posterior.{kind}.{n}"),
    )
    published = MappingProxyType(
        {
            "resolution": (128, 128),
            "grid": (4, 4),
            "encoder_channels": (16, 16, 32, 32, 64, 64, 128, 128, 128),
            "encoder_kernels": (4, 3, 4, 3, 4, 3, 4, 3, 4),
            "encoder_strides": (2, 1, 2, 1, 2, 1, 2, 1, 2),
            "draw_steps": 4,
            "global_size": 32,
            "global_hidden": (512, 512),
            "global_decoder_hidden": (512, 1024),
            "local_channels": (128, 128),
            "initial_size": -1.0,
            "glimpse_channels": (128, 64, 32, 16, 8),
            "glimpse_kernels": (3, 3, 3, 3, 3, 3),
            "glimpse_upscales": (2, 2, 2, 2, 2, 2),
            "background_hidden": (512, 256),
            "background_prior_hidden": (128, 64),
            "background_channels": (128, 64, 32, 16, 8),
            "background_kernels": (1, 1, 1, 1, 1, 3),
            "background_upscales": (4, 2, 4, 2, 2, 1),
            "temperature": (1.0, 0.5, 1000, 20_000),
            "early_steps": 500,
            "early_pres": 0.99,
            "early_alpha": 0.9,
            "aux_pres": (0.1, 0.001, 0, 4000),
            "aux_where_mean": (-1.5, 0.0, 0.0, 0.0),
            "aux_where_std": (0.1, 0.3, 1.0, 1.0),
            **{f"beta_{name}": 1.0 for name in PUBLISHED_BETAS},
            "beta_global": (0.0, 1.0, 0, 100_000),
            "beta_aux_where": (10.0, 1.0, 0, 500),
            "beta_aux_bg": (50.0, 1.0, 0, 50_000),
        }
    )
    background: Tensor
    aux_p_where_mean: Tensor
    aux_p_where_std: Tensor

    settings: Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        features = settings.encoder_channels[-1]
        for name in ("what", "bg", "depth"):
            self.register_buffer(f"aux_p_{name}_mean", torch.zeros(1))
            self.register_buffer(f"aux_p_{name}_std", torch.ones(1))
        for name in ("mean", "std"):
            values = torch.tensor([getattr(settings, f"aux_where_{name}")])
            self.register_buffer(f"aux_p_where_{name}", values)
        self.register_buffer("aux_p_pres_probs", torch.tensor(settings.aux_pres[0]))
        self.register_buffer("background", torch.zeros(1, 3, *settings.resolution))
        self.img_encoder = NormedConvs(
            3, settings.encoder_channels, settings.encoder_kernels, settings.encoder_strides
        )
        self.global_struct_draw = StructDRAW(settings)
        self.p_z_given_x_or_g_net = LocalLatentNet(settings)
        self.local_latent_sampler = LocalLatentSampler(settings)
        self.p_bg_decoder = BackgroundDecoder(settings)
        parameters = 2 * settings.background_size
        code_size = settings.draw_steps * settings.global_size
        self.p_bg_given_g_net = BackgroundPrior(
            (code_size, *settings.background_prior_hidden, parameters)
        )
        self.q_bg_given_x_net = BackgroundPosterior(
            (features * settings.num_cells, *settings.background_hidden, parameters)
        )

    def noise(self, batch_size: int, generator: torch.Generator | None = None) -> Noise:
        """Uniform noise of presence; standard normals of all other latents."""
        device, eps = self.background.device, 2.0**-23
        noise = {}
        for name, size in self.settings.noise_sizes.items():
            draw = torch.rand if name == "pres" else torch.randn
            noise[name] = draw((batch_size, *size), generator=generator, device=device)
        noise["pres"].clamp_(eps, 1.0 - eps)
        return noise

    def infer(self, image: Tensor, noise: Noise, step: int) -> Latents:
        """Draws the latents of images from the posterior."""
        encoded = self.img_encoder(image)
        code = self.global_struct_draw(encoded.float(), noise["global"])
        p_local, q_local = (self.p_z_given_x_or_g_net(x) for x in (code.code, encoded))
        p_bg = self.p_bg_given_g_net(code.z)
        q_bg = self.q_bg_given_x_net(encoded)
        odds = q_local.pres + noise["pres"].log() - (-noise["pres"]).log1p()
        pres = (odds / linear_ramp(step, self.settings.temperature)).sigmoid()
        local = {name: draw(getattr(q_local, name), noise[name]) for name in LOCAL[1:]}
        local["pres"] = pres.clamp(torch.finfo(torch.float32).tiny, 1.0 - 2.0**-23)
        return Latents(code, local, draw(q_bg, noise["background"]), p_local, q_local, p_bg, q_bg)

    def decode_image(self, latents: Latents, step: int) -> Scene:
        """The scene that latents describe."""
        local, sampler = latents.local, self.local_latent_sampler
        pres = local["pres"][..., 0]
        is_early = 0 < step < self.settings.early_steps
        if is_early:
            pres = pres.clamp(max=self.settings.early_pres)
        return compose(
            sampler.glimpses(local["what"]),
            pres,
            local["depth"][..., 0],
            sampler.transforms(local["where"]),
            self.p_bg_decoder(latents.bg),
            self.settings.early_alpha if is_early else None,
        )

    def kl_terms(self, latents: Latents, step: int) -> dict[str, Tensor]:
        """Every KL term times its weight."""
        p, q = latents.p_local, latents.q_local
        pres = latents.local["pres"].clamp(min=1e-5)
        where = Normal(self.aux_p_where_mean, self.aux_p_where_std)
        standard = Normal(torch.zeros_like(pres[:1, :1]), 1.0)
        aux_pres = torch.full_like(pres, linear_ramp(step, self.settings.aux_pres))
        terms = {
            "pres": bernoulli_kl(q.pres.sigmoid(), p.pres.sigmoid()),
            "aux_pres": bernoulli_kl(q.pres.sigmoid(), aux_pres),
            "where": kl_divergence(q.where, p.where),
            "aux_where": kl_divergence(q.where, where) * pres,
            "what": kl_divergence(q.what, p.what),
            "aux_what": kl_divergence(q.what, standard) * pres,
            "depth": kl_divergence(q.depth, p.depth),
            "aux_depth": kl_divergence(q.depth, standard) * pres,
            "bg": kl_divergence(latents.q_bg, latents.p_bg),
            "aux_bg": kl_divergence(latents.q_bg, Normal(torch.zeros_like(latents.bg), 1.0)),
            "global": kl_divergence(latents.code.posterior, latents.code.prior),
        }
        return {
            f"kl_{name}": linear_ramp(step, getattr(self.settings, f"beta_{name}"))
            * term.flatten(1).sum(1)
            for name, term in terms.items()
        }

    def forward(
        self, image: Tensor, noise: Noise | None = None, *, step: int = TRAINED
    ) -> Prediction:
        """Reconstruction, masks and latents: the means of all latents, not a draw.

        See `objdisc_jax.models.gnm.GNM.predict` for `slots` and `extras`.

        Args:
            image: `[b, 3, h, w]` in [0, 1].
            noise: not used but for its shapes.
            step: the training step, which sets the temperature; by default after all annealing.
        """
        with self.compute_type():
            noise = self.noise(len(image)) if noise is None else noise
            means = {name: torch.full_like(x, 0.5 * (name == "pres")) for name, x in noise.items()}
            latents = self.infer(image, means, step)
            scene = self.decode_image(latents, step)
        local = latents.local
        masks = torch.cat([scene.masks, (1.0 - scene.masks.sum(1, keepdim=True)).relu()], 1)
        where = self.local_latent_sampler.transforms(local["where"])
        scale, shift = where.chunk(2, -1)
        low, high = (0.5 * (shift + sign * scale + 1.0) for sign in (-1, 1))
        boxes = torch.stack([low[..., 1], high[..., 1], low[..., 0], high[..., 0]], -1)
        height, width = self.resolution
        return Prediction(
            recon=scene.image,
            masks=masks / masks.sum(1, keepdim=True),
            slots=torch.cat([local["what"], where, local["depth"], local["pres"]], -1),
            background=masks.shape[1] - 1,
            count=local["pres"][..., 0].round().sum(1).int(),
            extras={
                "boxes": boxes * boxes.new_tensor([height, height, width, width]),
                "z_pres": local["pres"][..., 0],
                "z_depth": local["depth"][..., 0],
                "foreground": scene.foreground,
                "background": scene.background,
            },
        )

    def loss(
        self, image: Tensor, noise: Noise | None = None, *, step: int = 0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The negative ELBO in nats per image, and its parts."""
        with self.compute_type():
            noise = self.noise(len(image)) if noise is None else noise
            latents = self.infer(image, noise, step)
            recon = self.decode_image(latents, step).image
        kls = self.kl_terms(latents, step)
        rec_loss = (
            Normal(recon, self.settings.sigma, validate_args=False)
            .log_prob(image)
            .flatten(1)
            .sum(1)
        )
        kl = torch.stack(list(kls.values())).sum(0)
        elbo = rec_loss - kl
        return -elbo, {"elbo": elbo, "rec_loss": rec_loss, "kl": kl, **kls}

    def hyper_parameters(self) -> dict[str, Any]:
        """The settings under the names of the published checkpoints' hyper-parameters."""
        return {
            "model_type": "gnm",
            "neg_1_to_pos_1_scale": False,
            "resolution": self.settings.resolution,
            "std": self.settings.sigma,
            "z_what_dim": self.settings.what_size,
            "z_bg_dim": self.settings.background_size,
        }


def draw(distribution: Normal, noise: Tensor) -> Tensor:
    """The draw that standard normal noise makes."""
    return distribution.loc + distribution.scale * noise


def bernoulli_kl(q: Tensor, p: Tensor) -> Tensor:
    """KL(q ‖ p) of probabilities."""
    first = q * ((q + EPSILON).log() - (p + EPSILON).log())
    return first + (1.0 - q) * ((1.0 - q + EPSILON).log() - (1.0 - p + EPSILON).log())
