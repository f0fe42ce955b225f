"""Time of a training step against PyTorch: a model at its published size, side by side.

    python benchmarks/step_time.py                        # Slot Attention on the CPU, batch 4
    python benchmarks/step_time.py --model slate --batch-size 2
    python benchmarks/step_time.py --config configs/iodine_tetrominoes.py --batch-size 16
    python benchmarks/step_time.py --layers               # also every kind of layer on its own
    python benchmarks/step_time.py --device cuda --batch-size 64 --dtype bfloat16

A step takes uint8 images and does everything that training does with them: scaling, loss, gradient,
Adam. Ours is the jitted step that training runs, PyTorch's is the module of `objdisc_jax.interop`
with the same parameters. The two take turns within one process, so that whatever else the machine
does hits both; the table shows medians over the rounds.
"""

import argparse
import csv
import os
import platform
import runpy
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # both live on one GPU

Contestants = dict[str, Callable[[], Any]]


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--model", default="slot_attention", help="name of the model, at its default size")
    add("--config", type=Path, help="an experiment of configs/ in place of a model's default size")
    add("--batch-size", type=int, default=4)
    add("--dtype", choices=["float32", "bfloat16"], default="float32")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--threads", type=int, help="CPU: cores that both may use (default: all allowed ones)")
    add("--rounds", type=int, default=7)
    add("--steps", type=int, help="steps per round (default: 1 on the CPU, 20 on a GPU)")
    add("--compile", action="store_true", help="torch.compile the PyTorch side")
    add("--channels-last", action="store_true", help="PyTorch's images and kernels channels-last")
    add("--layers", action="store_true", help="time single layers of Slot Attention too")
    add("--csv", type=Path, help="append the rows to this file, with hardware and versions")
    arguments = parser.parse_args()
    arguments.steps = arguments.steps or (1 if arguments.device == "cpu" else 20)
    return arguments


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
    print(
        f"{arguments.config or arguments.model}, {arguments.dtype}, batch "
        f"{arguments.batch_size}, medians of {arguments.rounds} rounds\n"
    )
    cases = {"training step": training_step(arguments)}
    if arguments.layers:
        cases |= single_layers(arguments)
    print(f"{'':<44}{'jax ms':>10}{'torch ms':>10}{'jax/torch':>11}")
    rows = []
    for name, contestants in cases.items():
        times = take_turns(contestants, arguments)
        ours, theirs = (1e3 * statistics.median(times[side]) for side in ("jax", "torch"))
        print(f"{name:<44}{ours:>10.1f}{theirs:>10.1f}{ours / theirs:>11.2f}", flush=True)
        rows.append({"case": name, "jax_ms": f"{ours:.3f}", "torch_ms": f"{theirs:.3f}"})
    if arguments.csv:
        settings = {
            key: getattr(arguments, key)
            for key in (
                "model",
                "config",
                "batch_size",
                "dtype",
                "rounds",
                "steps",
                "compile",
                "channels_last",
            )
        }
        append(arguments.csv, [row | settings | hardware for row in rows])


def take_turns(contestants: Contestants, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds a call of each contestant in each round, after two calls that are not counted."""
    for run in contestants.values():
        for _ in range(2):
            run()
            synchronize(arguments.device)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(arguments.rounds):
        for name, run in contestants.items():
            time.sleep(0.05)  # threads of the other one stop spinning
            start = time.perf_counter()
            for _ in range(arguments.steps):
                result = run()
            if name == "jax":
                import jax

                jax.block_until_ready(result)
            synchronize(arguments.device)
            times[name].append((time.perf_counter() - start) / arguments.steps)
    return times


def synchronize(device: str) -> None:
    """Waits until PyTorch's work on the device is done."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def training_step(arguments: argparse.Namespace) -> Contestants:
    """One update of the model at its default size, both ways, from the same parameters."""
    import jax
    import numpy as np
    import torch
    from torch.nn.utils import convert_conv2d_weight_memory_format

    from objdisc_jax import config as configs
    from objdisc_jax import interop
    from objdisc_jax.interop import mapping
    from objdisc_jax.models import base
    from objdisc_jax.training import run_dir
    from objdisc_jax.training.step import initial_state, make_train_step

    if arguments.config:
        config = runpy.run_path(str(arguments.config))["get_config"]()
    else:
        config = configs.experiment(model=arguments.model, data="clevr_with_masks")
    config.batch_size = arguments.batch_size
    config.model.dtype = arguments.dtype
    graphdef, params = base.split(run_dir.build_model(config))
    block = configs.to_dict(config)["model"]
    height, width = block["resolution"]
    shape = (arguments.batch_size, height, width, 3)
    image = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    theirs = interop.create(block)
    theirs.load_state_dict(mapping.to_torch(params, theirs))
    theirs.to(arguments.device)
    if arguments.channels_last:
        convert_conv2d_weight_memory_format(theirs, torch.channels_last)
    rate = config.optimizer.learning_rate
    optimizer = torch.optim.Adam(theirs.parameters(), rate, fused=arguments.device == "cuda")
    loss_of = torch.compile(theirs.loss) if arguments.compile else theirs.loss
    torch_image = torch.from_numpy(image).permute(0, 3, 1, 2).to(arguments.device)
    if not arguments.channels_last:
        torch_image = torch_image.contiguous()

    low, high = theirs.input_range

    def torch_step():
        loss, _ = loss_of(low + (high - low) * (torch_image.float() / 255.0))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()

    state = initial_state(config, params)
    step = make_train_step(config, graphdef)
    batch = {"image": jax.device_put(image)}

    def jax_step():
        nonlocal state
        state, scalars = step(state, batch, {})
        return state, scalars

    return {"jax": jax_step, "torch": torch_step}


def single_layers(arguments: argparse.Namespace) -> dict[str, Contestants]:
    """The kinds of layers of that model: forward, gradient of the input, gradient of the kernel."""
    b, k = arguments.batch_size, 7
    layers = {
        "conv 5x5 3->64, 128x128": (b, 3, 64, 128, 5, 0),
        "conv 5x5 64->64, 128x128": (b, 64, 64, 128, 5, 0),
        f"deconv 5x5/2 64->64, 64->128, {k} slots": (b * k, 64, 64, 64, 5, 2),
        f"deconv 5x5 64->64, 128x128, {k} slots": (b * k, 64, 64, 128, 5, 1),
        f"deconv 3x3 64->4, 128x128, {k} slots": (b * k, 64, 4, 128, 3, 1),
    }
    return {
        f"{name}: {part}": contestants
        for name, layer in layers.items()
        for part, contestants in one_layer(arguments, *layer).items()
    }


def one_layer(
    arguments: argparse.Namespace, batch: int, n_in: int, n_out: int, side: int, size: int, up: int
) -> dict[str, Contestants]:
    """A convolution, or a transposed one where `up` is its stride, in three parts."""
    import jax
    import jax.numpy as jnp
    import torch
    from flax import nnx
    from torch.nn.utils import convert_conv2d_weight_memory_format

    from objdisc_jax.compiling import jit
    from objdisc_jax.nn.conv import ConvTranspose, conv

    dtype, rngs = jnp.dtype(arguments.dtype), nnx.Rngs(0)
    if up:
        layer = ConvTranspose(n_in, n_out, size, stride=up, dtype=dtype, rngs=rngs)
    else:
        layer = conv(n_in, n_out, size, dtype=dtype, rngs=rngs)
    graphdef, params = nnx.split(layer)
    x = jnp.ones((batch, side, side, n_in), arguments.dtype)

    def forward(params, x):
        return nnx.merge(graphdef, params)(x)

    out = jit(forward)(params, x)
    backward = {
        "input gradient": jit(lambda p, x, g: jax.vjp(lambda x: forward(p, x), x)[1](g)),
        "kernel gradient": jit(lambda p, x, g: jax.vjp(lambda p: forward(p, x), p)[1](g)),
    }

    half, options = (
        size // 2,
        {"device": arguments.device, "dtype": getattr(torch, arguments.dtype)},
    )
    theirs = (
        torch.nn.ConvTranspose2d(n_in, n_out, size, up, half, up - 1, **options)
        if up
        else torch.nn.Conv2d(n_in, n_out, size, 1, half, **options)
    )
    tx = torch.ones((batch, n_in, side, side), **options)
    if arguments.channels_last:
        convert_conv2d_weight_memory_format(theirs, torch.channels_last)
        tx = tx.contiguous(memory_format=torch.channels_last)
    tx.requires_grad_()
    tout = theirs(tx)
    tgrad = torch.ones_like(tout)
    wanted = {"input gradient": [tx], "kernel gradient": list(theirs.parameters())}

    def torch_forward():
        with torch.no_grad():
            theirs(tx)

    jax_forward = jit(forward)
    cases: dict[str, Contestants] = {
        "forward": {"jax": lambda: jax_forward(params, x), "torch": torch_forward}
    }
    for part, function in backward.items():
        cases[part] = {
            "jax": lambda function=function: function(params, x, out),
            "torch": lambda part=part: torch.autograd.grad(
                tout, wanted[part], tgrad, retain_graph=True
            ),
        }
    return cases


def describe(device: str, threads: int) -> dict[str, str | int]:
    """Hardware and versions."""
    import jax
    import torch

    if device == "cuda":  # PyTorch may be a build for the CPU
        on_gpu = torch.cuda.is_available()
        chip = torch.cuda.get_device_name() if on_gpu else jax.devices()[0].device_kind
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        chip = models[0] if models else platform.machine()
    return {
        "hardware": chip,
        "threads": threads,
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": torch.__version__,
    }


def find(file: Path, row: dict[str, Any], key: Sequence[str]) -> dict[str, str] | None:
    """The row of a CSV file that agrees with another one in the columns of a key."""
    if not file.exists():
        return None
    with file.open(newline="") as stream:
        for found in csv.DictReader(stream):
            if all(found[name] == str(row[name]) for name in key):
                return found
    return None


def append(file: Path, rows: list[dict[str, Any]]) -> None:
    """Appends rows to a CSV file; a new file gets a header."""
    is_new = not file.exists()
    with file.open("a", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
