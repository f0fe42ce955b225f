"""Compiled programs, kept in the user's cache folder so that a second start need not compile."""

import hashlib
import platform
from pathlib import Path

import jax
from absl import logging
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from objdisc_jax import files
from objdisc_jax.data import cache

MAX_BYTES = 4 * 2**30
"""Programs not used for the longest time are removed beyond it."""
MIN_SECONDS = 0.1
"""Programs that compile in less are not worth a file."""


def use_cache(config: ConfigDict) -> None:
    """Turns on JAX's persistent compilation cache, unless `compilation_cache` is False.

    A folder that the environment names (`JAX_COMPILATION_CACHE_DIR`) is left to it, with all of
    JAX's own settings.
    """
    is_set = getattr(jax.config, "jax_compilation_cache_dir", None) is not None
    if is_set or not config.compilation_cache:
        return
    folder = cache.folder() / "compiled" / _processor()
    if not _can_be_locked(folder):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    compilation_cache.reset_cache()  # JAX looks for the folder once, when it first compiles


def _can_be_locked(folder: Path) -> bool:
    """Whether processes can share the folder; JAX would try, and fail, with every program."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if files.has_locks(folder):
            return True
        reason = "its file system has no locks"
    except OSError as error:
        reason = error.strerror
    logging.warning("Compiled programs are not kept in %s: %s.", folder, reason)
    return False


def _processor() -> str:
    """A name for this kind of processor, whose programs others in a shared home cannot run."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    kind = [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    return hashlib.sha256("\n".join([platform.machine(), *(kind or lines)]).encode()).hexdigest()[
        :16
    ]
