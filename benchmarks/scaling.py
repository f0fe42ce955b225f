"""Time of a training step on one, two, four, ... devices of this machine, and how well it scales.

    python benchmarks/scaling.py --csv scaling.csv                    # all GPUs
    python benchmarks/scaling.py --device cpu --devices 8 --batch-size 8 --steps 2 --rounds 1

Two series. `batch` keeps the batch: n devices should take 1/n of the time, and find the same
losses, which is checked. `per device` gives every device as many images as the one had: the time
should stay. Efficiency is the share of that ideal. Simulated devices of a CPU share its cores:
there the losses mean something, the times do not.

A case whose row the CSV file has is not measured again.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from step_time import append, describe, find

CHECKED_STEPS = 3
KEY = ("model", "dtype", "settings", "series", "devices", "global_batch_size")
KEY += ("hardware", "jax", "torch")


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="slot_attention", help="its name; it has its default size")
    add("--batch-size", type=int, default=64, help="of one device")
    add("--dtype", choices=["float32", "bfloat16"], default="float32")
    add("--device", choices=["cpu", "cuda"], default="cuda")
    add("--devices", type=int, help="CPU: how many to simulate (default: 4)")
    add("--settings", type=json.loads, default={}, help="keys of the model, as JSON, to try it out")
    add("--rounds", type=int, default=5)
    add("--steps", type=int, default=20, help="updates a round")
    add("--csv", type=Path, help="append the rows to this file, with hardware and versions")
    return parser.parse_args()


def main() -> None:
    """Measures and prints the two series."""
    arguments = parse()
    os.environ["JAX_PLATFORMS"] = arguments.device
    if arguments.device == "cpu":
        os.environ["JAX_NUM_CPU_DEVICES"] = str(arguments.devices or 4)
    import jax

    available = jax.device_count()
    counts = [2**n for n in range(available.bit_length()) if 2**n <= available]
    counts += [available] if available not in counts else []
    if counts == [1]:
        print("There is one device: nothing to compare.")
        return
    hardware = describe(arguments.device, len(os.sched_getaffinity(0)))
    print(", ".join(f"{name} {value}" for name, value in hardware.items()))
    print(f"{arguments.model}, {arguments.dtype}, {arguments.batch_size} images\n")
    print(f"{'series':<12}{'devices':>8}{'batch':>8}{'step ms':>12}{'efficiency':>12}")
    size = arguments.batch_size
    cases = [("batch", count, size) for count in counts if size % count == 0]
    cases += [("per device", count, size * count) for count in counts if count > 1]
    settings = {key: getattr(arguments, key) for key in ("model", "dtype", "rounds", "steps")}
    settings["settings"] = json.dumps(arguments.settings)
    one: dict[str, str] = {}
    for series, count, batch_size in cases:
        row = settings | {"series": series, "devices": count, "global_batch_size": batch_size}
        row |= hardware
        found = find(arguments.csv, row, KEY) if arguments.csv else None
        if found is None:
            losses, seconds = measure(arguments, count, batch_size)
            found = row | {"step_ms": f"{1e3 * seconds:.3f}", "losses": json.dumps(losses)}
            one = one or found
            images = batch_size / size  # as a multiple of those of the one device
            ideal = float(one["step_ms"]) * images / count
            found["efficiency"] = f"{ideal / float(found['step_ms']):.3f}"
            if series == "batch":
                check_same_losses(losses, json.loads(one["losses"]), count)
            if arguments.csv:
                append(arguments.csv, [found])
        one = one or found
        print(
            f"{series:<12}{count:>8}{batch_size:>8}{found['step_ms']:>12}{found['efficiency']:>12}",
            flush=True,
        )


def check_same_losses(losses: list[float], expected: list[float], count: int) -> None:
    """Checks that several devices find what one does, but for rounding that updates enlarge."""
    difference = max(abs(a / b - 1) for a, b in zip(losses, expected, strict=True))
    assert difference < 1e-2, f"{count} devices find the losses {losses}, one {expected}"


def measure(
    arguments: argparse.Namespace, num_devices: int, batch_size: int
) -> tuple[list[float], float]:
    """Losses of the first steps on some devices, and the median time of a later one."""
    import jax
    import numpy as np

    from objdisc_jax import config as configs
    from objdisc_jax import sharding
    from objdisc_jax.models import base
    from objdisc_jax.training import run_dir
    from objdisc_jax.training.step import initial_state, make_train_step

    config: Any = configs.experiment(model=arguments.model, data="clevr_with_masks")
    config.batch_size = batch_size
    config.model.dtype = arguments.dtype
    config.model.update(arguments.settings)
    mesh = sharding.data_mesh(jax.devices()[:num_devices])
    graphdef, params = base.split(run_dir.build_model(config))
    state = sharding.put_replicated(initial_state(config, params), mesh)
    step = make_train_step(config, graphdef)
    shape = (batch_size, *config.model.resolution, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    batch = sharding.put_batch({"image": image}, mesh)
    losses = []
    for _ in range(CHECKED_STEPS):
        state, scalars = step(state, batch, {})
        losses.append(float(scalars["loss"]))
    times = []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        for _ in range(arguments.steps):
            state, _ = step(state, batch, {})
        jax.block_until_ready(state)
        times.append((time.perf_counter() - start) / arguments.steps)
    return losses, statistics.median(times)


if __name__ == "__main__":
    main()
