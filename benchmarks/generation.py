"""Time to decode one image token by token: SLATE at its published size, against PyTorch.

    python benchmarks/generation.py

Ours keeps the keys and values of the tokens so far, in one compiled scan. PyTorch's runs the whole
decoder again for every token, as the published code does, with the same parameters and slots.
"""

import argparse
import os
import time


def main() -> None:
    """Runs the comparison and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--batch-size", type=int, default=1)
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--rounds", type=int, default=3, help="ours; PyTorch, which takes minutes, runs once")
    arguments = parser.parse_args()
    os.environ["JAX_PLATFORMS"] = arguments.device
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import numpy as np
    import torch
    from step_time import describe

    from objdisc_jax import config as configs
    from objdisc_jax import interop
    from objdisc_jax.interop import mapping
    from objdisc_jax.interop.slate import SLATE as TorchSLATE
    from objdisc_jax.models import base
    from objdisc_jax.models.slate.model import SLATE
    from objdisc_jax.training import run_dir

    num_cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(num_cores)
    hardware = describe(arguments.device, num_cores)
    print(", ".join(f"{name} {value}" for name, value in hardware.items()))

    config = configs.experiment(model="slate", data="clevr_with_masks")
    graphdef, params = base.split(run_dir.build_model(config))
    shape = (arguments.batch_size, config.model.num_slots, config.model.slot_size)
    slots = np.random.default_rng(0).standard_normal(shape, np.float32)

    @jax.jit
    def generate(params, slots):
        model = base.merge(graphdef, params)
        assert isinstance(model, SLATE)
        return model.generate(slots)

    jax.block_until_ready(generate(params, slots))
    times = []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        tokens = jax.block_until_ready(generate(params, slots))
        times.append(time.perf_counter() - start)
    ours = sorted(times)[len(times) // 2]
    print(f"jax, cached            {ours:8.2f} s, median of {arguments.rounds}", flush=True)

    model = interop.create(config.model)
    assert isinstance(model, TorchSLATE)
    model.load_state_dict(mapping.to_torch(params, model))
    model.to(arguments.device).eval()
    torch_slots = torch.from_numpy(slots).to(arguments.device)
    start = time.perf_counter()
    found = model.generate(torch_slots).cpu().numpy()
    theirs = time.perf_counter() - start
    print(f"torch, running again   {theirs:8.2f} s")
    print(f"torch / jax            {theirs / ours:8.1f}")
    print(f"tokens that agree      {(found == np.asarray(tokens)).mean():8.4f}")


if __name__ == "__main__":
    main()
