"""The errors for everything that is wrong with data or with what is asked of it."""

from objdisc_jax.errors import UserError

SKIPPING = "To go on without such images: --config.data.on_bad_image=skip"
"""What helps where a `BadImageError` ends what it need not end."""


class DataError(UserError):
    """Data is missing, damaged or not as declared, or a request for it cannot be met."""


class BadImageError(DataError):
    """One image or its segmentation cannot be read; others may well be."""
