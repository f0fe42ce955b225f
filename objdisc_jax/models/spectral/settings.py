"""Settings of spectral clustering."""

import dataclasses
from types import MappingProxyType

from objdisc_jax import settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.BackboneSettings):
    """By default on the tenth block of DINOv2's ViT-S/14, which separates things best."""

    recommended = MappingProxyType({"num_train_steps": 1, "background.mode": "none"})

    block: int = 10
    num_slots: int = 7  # segments, or the largest number of them
    eigengap: bool = False  # take as many segments as come before the largest gap of eigenvalues
    temperature: float = 0.1  # affinities of patches are exp((cosine - 1) / temperature)

    def check(self) -> None:
        """Refuses settings out of range."""
        super().check()
        self.between(2, self.num_patches - 1, "num_slots")
        if self.temperature <= 0.0:
            self.refuse("temperature", "it must be above 0")

    @classmethod
    def small(cls) -> "Settings":
        """Three segments of 24x24 pixels, on a backbone of two blocks."""
        return cls(resolution=(24, 24), backbone="tiny", block=2, num_slots=3)
