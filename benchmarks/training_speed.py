"""Speed, memory and use of the hardware in training: one model, one precision, one side.

    python benchmarks/training_speed.py --model slate --precision tf32 --csv speed.csv
    python benchmarks/training_speed.py --model slate --precision tf32 --side torch-compile ...

Every case is a process of its own, so that peak memory is its own; a case whose row the CSV file
has is not measured again. The model has its default size. Measured are

- the time of an update with the batch already on the device, median and least of the rounds (jax:
  images of 240x320 as the loader gives them, cropped and resized in the update);
- images per second with that batch, and with batches from the data loader (jax alone: a file of 192
  images like CLEVR's, read from the page cache);
- peak memory of the device;
- of jax, the floating-point operations that an update takes (`gflop_per_step`), and, as operations
  per second, their share of what large products of matrices reach in the same precision
  (`utilisation` of `matmul_tflops`).

Precisions: `float32` (products in full), `tf32` (float32 with rounded factors), `bfloat16` (jax:
the model's `dtype`; torch: autocast).
"""

import argparse
import contextlib
import functools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from step_time import append, describe, find, synchronize

PRECISIONS = ("float32", "tf32", "bfloat16")
SIDES = ("jax", "torch", "torch-compile")
KEY = ("model", "side", "precision", "batch_size", "settings", "hardware", "jax", "torch")
NUM_IMAGES = 192


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="its name; it has its default size")
    add("--precision", choices=PRECISIONS, default="float32")
    add("--side", choices=SIDES, default="jax")
    add("--batch-size", type=int, help="default: the model's recommended one")
    add("--device", choices=["cpu", "cuda"], default="cuda")
    add("--rounds", type=int, default=5)
    add("--steps", type=int, default=20, help="updates a round")
    add("--workers", type=int, default=min(8, len(os.sched_getaffinity(0))), help="of the loader")
    add("--settings", type=json.loads, default={}, help="keys of the model, as JSON, to try it out")
    add("--csv", type=Path, required=True, help="append the row to this file")
    return parser.parse_args()


def main() -> None:
    """Measures the case, unless the CSV file has it."""
    arguments = parse()
    if arguments.batch_size is None:
        from objdisc_jax import config as configs

        arguments.batch_size = configs.experiment(
            model=arguments.model, data="clevr_with_masks"
        ).batch_size
    # The CPU counts operations.
    on_gpu = arguments.device == "cuda" and arguments.side == "jax"
    os.environ["JAX_PLATFORMS"] = "cuda,cpu" if on_gpu else "cpu"
    hardware = describe(arguments.device, len(os.sched_getaffinity(0)))
    settings = {key: getattr(arguments, key) for key in ("model", "side", "precision")}
    settings |= {"batch_size": arguments.batch_size, "settings": json.dumps(arguments.settings)}
    row: dict[str, Any] = settings | hardware
    name = ", ".join(str(row[key]) for key in ("model", "side", "precision", "batch_size"))
    if find(arguments.csv, row, KEY):
        print(f"{name}: measured already")
        return
    measure = measure_jax if arguments.side == "jax" else measure_torch
    row |= measure(arguments)
    append(arguments.csv, [row])
    print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in row.items() if k not in KEY))


def timed(
    update: Callable[[], Any], wait: Callable[[Any], Any], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Times of an update, after two that are not counted."""
    start = time.perf_counter()
    wait(update())
    first = time.perf_counter() - start
    wait(update())
    times = []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        for _ in range(arguments.steps):
            result = update()
        wait(result)
        times.append((time.perf_counter() - start) / arguments.steps)
    median = statistics.median(times)
    return {
        "first_update_s": f"{first:.1f}",
        "step_ms": f"{1e3 * median:.3f}",
        "least_step_ms": f"{1e3 * min(times):.3f}",
        "images_per_second": f"{arguments.batch_size / median:.1f}",
    }


def measure_jax(arguments: argparse.Namespace) -> dict[str, Any]:
    """Our side."""
    import jax
    import numpy as np

    from objdisc_jax.data import loader
    from objdisc_jax.training import run_dir
    from objdisc_jax.training.step import make_train_step

    precision = arguments.precision
    matmul = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}[precision]
    jax.config.update("jax_default_matmul_precision", matmul)
    with tempfile.TemporaryDirectory() as folder:
        config = experiment(arguments, Path(folder) / "images.h5")
        run = run_dir.abstract(config)
        graphdef, shapes = run.graphdef, run.state
        dataset = loader.load(config.data, "train")
        batch_shape = (arguments.batch_size, *dataset.read(np.array([0]))["image"].shape[1:])
        image = np.random.default_rng(0).integers(0, 256, batch_shape, np.uint8)
        batch = {"image": jax.device_put(image)}
        step = make_train_step(config, graphdef)
        start = time.perf_counter()
        compiled = step.lower(shapes, batch, {}).compile()
        compile_seconds = time.perf_counter() - start
        state = initial(config)

        def update() -> Any:
            nonlocal state
            state, scalars = compiled(state, batch, {})
            return scalars

        found = timed(update, jax.block_until_ready, arguments)
        rate = with_loader(arguments, config, dataset, compiled, state)
        found["loader_images_per_second"] = f"{rate:.1f}"
        stats = jax.local_devices()[0].memory_stats() or {}
    ceiling, flops = matmul_flops(arguments), count_flops(config)
    rate = flops / (float(found["step_ms"]) / 1e3)
    return found | {
        "compile_s": f"{compile_seconds:.1f}",
        "peak_memory_gib": gib(stats.get("peak_bytes_in_use")),
        "gflop_per_step": f"{flops / 1e9:.2f}",
        "matmul_tflops": f"{ceiling / 1e12:.3f}",
        "utilisation": f"{rate / ceiling:.4f}",
    }


def measure_torch(arguments: argparse.Namespace) -> dict[str, Any]:
    """PyTorch's side: the module of `objdisc_jax.interop` with Adam."""
    import numpy as np
    import torch

    from objdisc_jax import config as configs
    from objdisc_jax import interop

    device, precision = arguments.device, arguments.precision
    if device == "cuda" and not torch.cuda.is_available():
        sys.exit(f"error: PyTorch {torch.__version__} sees no GPU. Install a build for CUDA.")
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    config = configs.experiment(model=arguments.model, data="clevr_with_masks")
    config.model.update(arguments.settings)
    block = configs.to_dict(config)["model"]
    model = interop.create(block).to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, fused=device == "cuda")
    loss_of = model.loss
    if arguments.side == "torch-compile":
        import torch._functorch.config

        # IODINE's loss differentiates its decoder itself, and needs the graph afterwards.
        torch._functorch.config.donated_buffer = False
        loss_of = torch.compile(model.loss)
    shape = (arguments.batch_size, *block["resolution"], 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().to(device)
    low, high = model.input_range

    def update() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bfloat16"):
            loss, _ = loss_of(low + (high - low) * (image.float() / 255.0))
        loss.mean().backward()
        optimizer.step()

    found = timed(update, lambda _: synchronize(device), arguments)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return found | {
        "loader_images_per_second": "",
        "compile_s": "",
        "peak_memory_gib": gib(peak),
        "gflop_per_step": "",
        "matmul_tflops": "",
        "utilisation": "",
    }


def experiment(arguments: argparse.Namespace, file: Path) -> Any:
    """The model at its default size, on a file of images that is made for it."""
    from conversion import clevr_records

    from objdisc_jax import config as configs
    from objdisc_jax.data import hdf5_writer, multi_object

    records = clevr_records(NUM_IMAGES)
    images = {"image": records["image"], "segmentation": multi_object.label_map(records["mask"])}
    splits = {"split_train": [0, NUM_IMAGES], "split_val": [0, 0], "split_test": [0, 0]}
    with hdf5_writer.new_file(file, num_records=NUM_IMAGES, attributes=splits) as writer:
        writer.write(0, images)
    config = configs.experiment(model=arguments.model, data="clevr_with_masks")
    config.data.path = str(file)
    config.data.max_objects = None
    config.data.num_workers = arguments.workers
    config.batch_size = arguments.batch_size
    config.model.update(arguments.settings)
    config.model.dtype = "bfloat16" if arguments.precision == "bfloat16" else "float32"
    return config


def initial(config: Any) -> Any:
    """The training state before the first update, on the device."""
    from objdisc_jax.models import base
    from objdisc_jax.training import run_dir
    from objdisc_jax.training.step import initial_state

    _, params = base.split(run_dir.build_model(config))
    return initial_state(config, params)


def with_loader(
    arguments: argparse.Namespace, config: Any, dataset: Any, step: Any, state: Any
) -> float:
    """Images per second of updates on batches that worker processes read."""
    import jax

    from objdisc_jax.data import loader

    num_steps = arguments.rounds * arguments.steps
    batches = loader.train_batches(
        dataset,
        batch_size=config.batch_size,
        seed=0,
        num_workers=config.data.num_workers,
    )
    with contextlib.closing(batches):
        for number, batch in zip(range(-2, num_steps), batches, strict=False):
            if number == 0:  # workers run
                jax.block_until_ready(state)
                start = time.perf_counter()
            state, _ = step(state, {"image": jax.device_put(batch["image"])}, {})
        jax.block_until_ready(state)
        return num_steps * config.batch_size / (time.perf_counter() - start)


def matmul_flops(arguments: argparse.Namespace) -> float:
    """Operations per second of large products of matrices, the best of the rounds."""
    import jax
    import jax.numpy as jnp

    size, repeats = (8192, 20) if arguments.device == "cuda" else (512, 5)
    dtype = jnp.bfloat16 if arguments.precision == "bfloat16" else jnp.float32
    factor = jax.random.normal(jax.random.key(0), (size, size), dtype) / size**0.5

    @jax.jit
    def chain(x):
        return jax.lax.fori_loop(0, repeats, lambda _, x: x @ factor, x)

    jax.block_until_ready(chain(factor))
    seconds = []
    for _ in range(arguments.rounds):
        start = time.perf_counter()
        jax.block_until_ready(chain(factor))
        seconds.append(time.perf_counter() - start)
    return repeats * 2 * size**3 / min(seconds)


def count_flops(config: Any) -> float:
    """Floating-point operations of an update, by XLA's analysis of the program as it is written.

    XLA counts the body of a loop once: loops are written out for it. The operations of one image
    are counted, and multiplied by the batch. What `rematerialize` computes again is not counted.
    """
    import jax

    from objdisc_jax.training import run_dir
    from objdisc_jax.training.step import make_train_step

    config = config.copy_and_resolve_references()
    if "rematerialize" in config.model:
        config.model.rematerialize = False
    run = run_dir.abstract(config)
    graphdef, shapes = run.graphdef, run.state
    image = jax.ShapeDtypeStruct((1, *config.model.resolution, 3), "uint8")
    scan = jax.lax.scan
    jax.lax.scan = functools.partial(scan, unroll=True)
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            lowered = make_train_step(config, graphdef).lower(shapes, {"image": image}, {})
    finally:
        jax.lax.scan = scan
    analysis: Any = lowered.cost_analysis()
    return config.batch_size * analysis["flops"]


def gib(size: int | None) -> str:
    """A size in GiB; empty where it is not known."""
    return "" if size is None else f"{size / 2**30:.2f}"


if __name__ == "__main__":
    main()
