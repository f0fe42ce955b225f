"""Settings of IODINE."""

import dataclasses
import math
from types import MappingProxyType
from typing import Literal

from objdisc_jax import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.Settings):
    """By default the official CLEVR6 model."""

    recommended = MappingProxyType(
        {
            "batch_size": 32,
            "num_train_steps": 1_000_000,
            "optimizer.learning_rate": 1e-3,  # of 32 images; it goes with the root of the batch
            "optimizer.kwargs.b1": 0.95,
            "optimizer.clip_norm": 5.0,
            "schedule.warmup_steps": 0.0,
            # A tenth after every million steps.
            "schedule.decay_steps": 1e6 * math.log10(2.0),
        }
    )

    num_slots: int = 7  # slots, the background's included; at least 2
    slot_size: int = 64  # size of a slot's latent
    num_iterations: int = 5  # refinements of the posterior in training
    eval_iterations: int | None = None  # refinements in predictions; None: as in training
    likelihood: Literal["logistic", "normal"] = "logistic"  # of a pixel around a slot's colours
    sigma: float = 0.03  # its scale, colours being in [0, 1]; the paper's normal one has 0.1
    # Factor of the gradients that the refinement reads, each image's own. Officially they are of
    # the mean over a device's batch: 1 / images of a device is what published weights go with.
    gradient_scale: float = 0.25
    decoder: Literal["conv", "mlp"] = "conv"  # spatial broadcast, or every pixel alone
    decoder_channels: tuple[int, ...] = (64, 64, 64, 64)  # one entry per layer but the last
    decoder_kernel: int = 3  # conv: side of its kernels
    num_frequencies: int = 12  # mlp: harmonics of the Fourier position features
    # mlp: draws are compared with the image at every n-th row and column, from a random offset that
    # is another one in every iteration; the refinement reads the n x n pixels around each.
    pixel_stride: int = 1
    encoder_channels: tuple[int, ...] = (64, 64, 64, 64)  # refinement: convolutions, stride 2
    encoder_kernel: int = 3  # side of their kernels
    mlp_sizes: tuple[int, ...] = (256, 256)  # refinement: layers after the mean over pixels
    lstm_size: int = 256  # refinement: state kept between iterations; 0: none
    coordinates: Literal["linear", "cosine"] = "linear"  # position of pixels in the refinement
    num_cosines: int = 3  # cosine: half waves along each side, the constant one included
    # A loop over iterations that computes their activations again; off: written out, which takes
    # several times the memory and, on a CPU, less time.
    rematerialize: bool = True
    dtype: settings.DType = "float32"  # of convolutions and layers; likelihoods are float32

    @property
    def num_predict_iterations(self) -> int:
        """Refinements in predictions."""
        return self.num_iterations if self.eval_iterations is None else self.eval_iterations

    def check(self) -> None:
        """Refuses layers that do not fit together, and values out of range."""
        self.at_least(1, "slot_size", "num_iterations", "decoder_kernel", "encoder_kernel")
        self.at_least(1, "decoder_channels", "encoder_channels", "mlp_sizes", "pixel_stride")
        self.at_least(2, "num_slots", "num_cosines")
        self.at_least(0, "lstm_size", "num_frequencies")
        if self.eval_iterations is not None:
            self.at_least(0, "eval_iterations")
        for key in ("decoder_channels", "encoder_channels", "mlp_sizes"):
            if not getattr(self, key):
                self.refuse(key, "there must be at least one layer")
        for key in ("sigma", "gradient_scale"):
            if getattr(self, key) <= 0.0:
                self.refuse(key, "it is above 0")
        if self.decoder == "conv" and self.pixel_stride != 1:
            self.refuse("pixel_stride", "it must be 1 unless model.decoder is 'mlp'")
        self.between(1, min(self.resolution), "pixel_stride")

    @classmethod
    def small(cls) -> "Settings":
        """A model of 16x16 pixels."""
        return cls(
            resolution=(16, 16),
            num_slots=3,
            slot_size=6,
            num_iterations=2,
            sigma=0.3,
            decoder_channels=(8, 8),
            encoder_channels=(8, 8),
            mlp_sizes=(12,),
            lstm_size=10,
        )
