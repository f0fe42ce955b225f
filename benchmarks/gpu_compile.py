"""Compiles training steps for an H100 on a machine without a GPU, and says what XLA made of them.

    python3 -m venv gpu-env && gpu-env/bin/pip install -e ".[cuda12]"       # about 6 GB
    gpu-env/bin/python benchmarks/gpu_compile.py                            # every model and dtype
    gpu-env/bin/python benchmarks/gpu_compile.py --config configs/slate_clevr6.py --dtype bfloat16
    gpu-env/bin/python benchmarks/gpu_compile.py --devices 8

Nothing runs: the CUDA plugin compiles for a described device. That shows whether a step compiles,
how long that takes, the memory it needs, how many kernels it has, which of cuDNN's and cuBLAS's
routines its convolutions and products become, and what several devices exchange. Times of the step
cannot be had this way, nor what auto-tuning would choose. Products are compiled without Triton,
which finds no tile sizes for some of them when nothing can be tuned.

A convolution with a window of tens of pixels is a gradient that cuDNN's own routine was not found
for: many times slower and larger than it need be.
"""

import argparse
import math
import os
import re
import runpy
import time
from collections import Counter
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_enable_triton_gemm=false"

CONFIGS = ("sa_clevr6", "gnm_clevr6", "slate_clevr6", "iodine_clevr6")


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--config", type=Path, nargs="+", help="experiments (default: each model's on CLEVR6)")
    add("--dtype", nargs="+", default=["float32", "bfloat16"])
    add("--batch-size", type=int, help="of one device (default: the config's)")
    add("--devices", type=int, default=1, help="GPUs of one machine that share the batch")
    add("--hlo", type=Path, help="folder to write the compiled programs to")
    return parser.parse_args()


def main() -> None:
    """Compiles and prints a line for each."""
    arguments = parse()
    folder = Path(__file__).parents[1] / "configs"
    configs = arguments.config or [folder / f"{name}.py" for name in CONFIGS]
    import jax

    print(f"jax {jax.__version__}, for {arguments.devices} H100; nothing runs\n")
    columns = "{:<16}{:<10}{:>8}{:>8}{:>9}  {}"
    print(columns.format("config", "dtype", "s", "GiB", "kernels", "library calls, all-reduces"))
    for config in configs:
        for dtype in arguments.dtype:
            start = time.time()
            compiled = compile_step(config, dtype, arguments.batch_size, arguments.devices)
            seconds = time.time() - start
            text, memory = compiled.as_text(), compiled.memory_analysis().temp_size_in_bytes
            if arguments.hlo:
                arguments.hlo.mkdir(parents=True, exist_ok=True)
                (arguments.hlo / f"{config.stem}_{dtype}.txt").write_text(text)
            kernels = len(re.findall(r" fusion\(", text))
            size = f"{memory / 2**30:.2f}"
            print(
                columns.format(config.stem, dtype, f"{seconds:.0f}", size, kernels, contents(text)),
                flush=True,
            )


def contents(text: str) -> str:
    """Library calls, wide convolutions and all-reduces of a compiled program, counted."""
    calls = Counter(re.findall(r'custom_call_target="(?:__)?([^"]+)"', text))
    parts = [f"{name} {count}" for name, count in sorted(calls.items())]
    wide = sum(int(size) > 15 for size in re.findall(r"window=\{size=(\d+)x\d+", text))
    if wide:
        parts.append(f"convolutions with windows over 15 pixels {wide}")
    reduces = [line for line in text.splitlines() if re.search(r" all-reduce(-start)?\(", line)]
    if reduces:
        size = sum(map(num_bytes, reduces))
        parts.append(f"all-reduces {len(reduces)} of {size / 2**20:.2f} MiB")
    return ", ".join(parts)


def num_bytes(line: str) -> int:
    """Bytes of an operation's result, which stands between its name and its kind."""
    widths = {"f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}
    result = line.split(" all-reduce")[0].split(" = ")[1]
    return sum(
        widths[name] * math.prod(int(length) for length in shape.split(",") if length)
        for name, shape in re.findall(r"(\w+)\[([\d,]*)\]", result)
    )


def compile_step(file: Path, dtype: str, batch_size: int | None, num_devices: int):
    """The training step of an experiment, compiled for described devices."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies

    from objdisc_jax import sharding
    from objdisc_jax.data import datasets
    from objdisc_jax.training import run_dir
    from objdisc_jax.training.step import make_train_step

    described = topologies.get_topology_desc(
        "h100", platform="cuda", target_config=h100(), topology=f"1x{num_devices}x1"
    )
    mesh = sharding.data_mesh(described.devices)
    config = runpy.run_path(str(file))["get_config"]()
    config.model.dtype = dtype
    batch_size = num_devices * (batch_size or config.batch_size)
    run = run_dir.abstract(config)
    declaration = datasets.get(config.data.name).declare(config.data)
    size = declaration.cropped_size or config.model.resolution

    def placed(tree, place):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)

    image = jax.ShapeDtypeStruct((batch_size, *size, 3), jnp.uint8)
    arguments = (
        placed(run.state, sharding.replicated(mesh)),
        placed({"image": image}, sharding.batched(mesh)),
        placed(run.frozen, sharding.replicated(mesh)),
    )
    step = make_train_step(config, run.graphdef)
    return step.trace(*arguments).lower(lowering_platforms=("cuda",)).compile()


def h100() -> str:
    """An H100 SXM 80 GB as XLA describes devices (published figures of the device)."""
    scalar = ((4, 64, 1), (8, 64, 1), (10, 128, 2), (11, 128, 1), (12, 64, 1), (16, 128, 2))
    tensor = ((10, 512), (16, 512), (11, 256))
    tensor += tuple((kind, 1024) for kind in (2, 6, 19, 20, 23, 24, 25, 28, 29, 33, 35, 36))

    def rates(rows, clock: float) -> str:
        return " ".join(
            f"rate_infos {{ key: {kind} value {{ clock_rate_ghz: {clock} "
            f"units_per_core: {units} ops_per_clock: {ops} }} }}"
            for kind, units, ops in rows
        )

    numbers = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 49152,
        "shared_memory_per_core": 233472,
        "shared_memory_per_block_optin": 232448,
        "threads_per_core_limit": 2048,
        "core_count": 132,
        "fpus_per_core": 128,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "memory_bandwidth": 3352320000000,
        "pcie_bandwidth": 34359738368,
        "l2_cache_size": 50 * 2**20,
        "device_memory_size": 84942979072,
        "clock_rate_ghz": 1.98,
        "device_address_bits": 64,
        "ecc_enabled": "true",
        "device_vendor": '"NVIDIA Corporation"',
        "name": '"NVIDIA H100 80GB HBM3"',
        "driver_version": '"13.0.0"',
        "runtime_version": '"12.8.0"',
        "compile_time_toolkit_version": '"12.8.0"',
        "dnn_version": '"9.10.0"',
    }
    lines = [f"{key}: {value}" for key, value in numbers.items()]
    lines.append("cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }")
    lines.append(f"scalar_unit_description {{ {rates(scalar, 1.98)} }}")
    lines.append(
        f"matrix_unit_description {{ {rates([(kind, 4, ops) for kind, ops in tensor], 1.83)} }}"
    )
    device = "\n".join(lines)
    return (
        f"gpu_device_info {{ {device} }}\n"
        'platform_name: "CUDA"\n'
        "dnn_version_info { major: 9 minor: 10 }\n"
        'device_description_str: "NVIDIA H100 80GB HBM3"\n'
    )


if __name__ == "__main__":
    main()
