"""Memory that a training step needs, from XLA's own analysis; compiles it, computes nothing.

python benchmarks/step_memory.py --config configs/slate_clevr6.py
python benchmarks/step_memory.py --config configs/slate_clevr6.py --dtype bfloat16
"""

import argparse
import runpy


def main() -> None:
    """Compiles the step and prints what it needs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--config", required=True, help="an experiment of configs/")
    add("--batch-size", type=int, help="default: that of the config")
    add("--dtype", choices=["float32", "bfloat16"], help="default: that of the config")
    arguments = parser.parse_args()

    import jax
    import jax.numpy as jnp

    from objdisc_jax.training import run_dir
    from objdisc_jax.training.step import make_train_step

    config = runpy.run_path(arguments.config)["get_config"]()
    config.batch_size = arguments.batch_size or config.batch_size
    config.model.dtype = arguments.dtype or config.model.dtype

    run = run_dir.abstract(config)
    graphdef, state = run.graphdef, run.state
    shape = (config.batch_size, *config.model.resolution, 3)
    batch = {"image": jax.ShapeDtypeStruct(shape, jnp.uint8)}
    analysis = make_train_step(config, graphdef).lower(state, batch, {}).compile().memory_analysis()
    print(
        f"{arguments.config}, batch {config.batch_size}, {config.model.dtype}, "
        f"{jax.devices()[0].device_kind}, jax {jax.__version__}"
    )
    for name, size in (
        ("temporary", analysis.temp_size_in_bytes),
        ("state and batch", analysis.argument_size_in_bytes),
        ("sum", analysis.temp_size_in_bytes + analysis.argument_size_in_bytes),
    ):
        print(f"  {name:<16}{size / 2**30:8.2f} GiB")


if __name__ == "__main__":
    main()
