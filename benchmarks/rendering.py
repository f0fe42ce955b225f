"""Time of GNM's rendering, forward and backward, against PyTorch's sampler at the published size.

    python benchmarks/rendering.py                  # on the CPU, batch 4
    python benchmarks/rendering.py --device cuda --batch-size 64

Sixteen glimpses of 64x64 pixels in each image of 128x128. Rendering is all that lies between
glimpses and image: placing (`affine_grid` and `grid_sample` there, two matrix products here) and
composing. It is differentiated by everything that goes in. PyTorch places all maps of a glimpse in
one call, as `objdisc_jax.interop` does, or in one for each quantity of the paper: premultiplied
colours, importance, opacity, colours.
"""

import argparse
import os
import statistics
from collections.abc import Callable

from step_time import Contestants, describe, take_turns

CELLS, GLIMPSE, IMAGE = 16, 64, 128


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--batch-size", type=int, default=4)
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--threads", type=int, help="CPU: cores that both may use (default: all allowed ones)")
    add("--rounds", type=int, default=15)
    add("--steps", type=int, default=4, help="calls a round")
    return parser.parse_args()


def main() -> None:
    """Runs the comparison and prints it."""
    arguments = parse()
    cores = sorted(os.sched_getaffinity(0))[: arguments.threads]
    os.sched_setaffinity(0, cores)  # before JAX starts: its thread pool counts these
    os.environ["JAX_PLATFORMS"] = arguments.device
    import torch

    torch.set_num_threads(len(cores))
    hardware = describe(arguments.device, len(cores))
    print(", ".join(f"{name} {value}" for name, value in hardware.items()))
    print(f"batch {arguments.batch_size}, medians of {arguments.rounds} rounds\n")
    times = take_turns(contestants(arguments), arguments)
    medians = {side: 1e3 * statistics.median(seconds) for side, seconds in times.items()}
    print(f"{'':<24}{'ms':>10}{'jax/torch':>11}")
    for side, median in medians.items():
        print(f"{side:<24}{median:>10.1f}{medians['jax'] / median:>11.2f}")


def contestants(arguments: argparse.Namespace) -> Contestants:
    """All ways to render the same random scenes."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    from objdisc_jax.interop import glimpses as theirs
    from objdisc_jax.models.gnm import glimpses as ours

    rng = np.random.default_rng(0)
    b = arguments.batch_size

    def uniform(*shape: int) -> np.ndarray:
        return rng.uniform(size=shape).astype(np.float32)

    places = np.concatenate([0.1 + 0.4 * uniform(b, CELLS, 2), 2 * uniform(b, CELLS, 2) - 1], -1)
    scene = {
        "glimpses": uniform(b, CELLS, GLIMPSE, GLIMPSE, 4),
        "pres": uniform(b, CELLS),
        "depth": uniform(b, CELLS),
        "where": places,
        "background": uniform(b, IMAGE, IMAGE, 3),
    }
    here = jax.device_put(scene)
    there = {name: torch.tensor(x, device=arguments.device) for name, x in scene.items()}
    there["glimpses"] = there["glimpses"].movedim(-1, 2).contiguous()
    there["background"] = there["background"].movedim(-1, 1).contiguous()
    for tensor in there.values():
        tensor.requires_grad_()

    @jax.jit
    @jax.grad
    def gradient(scene: dict[str, jax.Array]) -> jax.Array:
        rendered = ours.compose(
            scene["glimpses"],
            scene["pres"],
            scene["depth"],
            scene["where"],
            scene["background"],
            fixed_alpha=0.9,
            is_early=jnp.array(False),
        )
        return jnp.sum(rendered.image**2)

    def together() -> torch.Tensor:
        rendered = theirs.compose(
            there["glimpses"],
            there["pres"],
            there["depth"],
            there["where"],
            there["background"],
            fixed_alpha=None,
        )
        return rendered.image

    def one_by_one() -> torch.Tensor:
        colours, opacity = there["glimpses"].split([3, 1], 2)
        opacity = opacity * there["pres"][..., None, None, None]
        importance = opacity * (-there["depth"]).sigmoid()[..., None, None, None]
        painted, importance, opacity, _ = (
            theirs.place(
                maps.flatten(0, 1), there["where"].flatten(0, 1), (IMAGE, IMAGE)
            ).unflatten(0, (b, -1))
            for maps in (colours * opacity, importance, opacity, colours)
        )
        weights = importance / (importance.sum(1, keepdim=True) + theirs.EPSILON)
        alpha = opacity.sum(1)
        alpha = alpha + (alpha.clamp(theirs.EPSILON, 1.0 - theirs.EPSILON) - alpha).detach()
        return (weights * painted).sum(1) + (1.0 - alpha) * there["background"]

    def torch_gradient(image: Callable[[], torch.Tensor]) -> None:
        for tensor in there.values():
            tensor.grad = None
        (image() ** 2).sum().backward()

    return {
        "jax": lambda: gradient(here),
        "torch, one call": lambda: torch_gradient(together),
        "torch, four calls": lambda: torch_gradient(one_by_one),
    }


if __name__ == "__main__":
    main()
