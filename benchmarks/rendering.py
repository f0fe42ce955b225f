"""Time of GNM's rendering, forward and backward, against PyTorch's sampler at the published size.

    python benchmarks/rendering.py                  # on the CPU, batch 4
    python benchmarks/rendering.py --device cuda --batch-size 64

Sixteen glimpses of 64x64 pixels in each image of 128x128. Rendering is all that lies between
glimpses and image: placing (`affine_grid` and `grid_sample` there, two matrix products here) and
composing. It is differentiated by everything that goes in.
"""

import argparse
import os
import statistics

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
    print(f"{'jax ms':>10}{'torch ms':>10}{'jax/torch':>11}")
    times = take_turns(contestants(arguments), arguments)
    ours, theirs = (1e3 * statistics.median(times[side]) for side in ("jax", "torch"))
    print(f"{ours:>10.1f}{theirs:>10.1f}{ours / theirs:>11.2f}")


def contestants(arguments: argparse.Namespace) -> Contestants:
    """Both ways to render the same random scenes."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import torch

    from objdisc_jax.interop import rendering as theirs
    from objdisc_jax.nn import rendering as ours

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

    def torch_gradient() -> None:
        for tensor in there.values():
            tensor.grad = None
        rendered = theirs.compose(
            there["glimpses"],
            there["pres"],
            there["depth"],
            there["where"],
            there["background"],
            fixed_alpha=None,
        )
        (rendered.image**2).sum().backward()

    return {"jax": lambda: gradient(here), "torch": torch_gradient}


if __name__ == "__main__":
    main()
