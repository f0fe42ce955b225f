"""Files of repositories on the Hugging Face Hub."""

import re
from pathlib import Path

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class HubError(Exception):
    """A file cannot be had; the text says why."""


def is_repository(text: str) -> bool:
    """Whether a text may name a repository: OWNER/NAME."""
    return _REPOSITORY.fullmatch(text) is not None


def download(repository: str, file: str) -> Path:
    """Downloads a file into the Hub's cache, unless it lies there already.

    Raises:
        HubError: the file cannot be had.
    """
    try:
        from huggingface_hub import hf_hub_download  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise HubError(
            "without the package huggingface_hub nothing can be downloaded "
            "(pip install 'objdisc_jax[hub]')"
        ) from None
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:  # no network, no such repository, no such file, a full disk
        raise HubError(f"from the Hugging Face Hub it cannot be had ({error})") from error
