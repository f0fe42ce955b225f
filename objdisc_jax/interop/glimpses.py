"""Placing glimpses in an image with PyTorch's own sampler, and composing a scene of them."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

EPSILON = 1e-15


def place(maps: Tensor, z_where: Tensor, size: tuple[int, int]) -> Tensor:
    """Places glimpses in images: `[n, c, p, q]` to `[n, c, h, w]`, zeros outside.

    Args:
        maps: the glimpses.
        z_where: (scale x, scale y, shift x, shift y) of each, the image reaching from −1 to 1.
        size: height and width of the images.
    """
    scale, shift = z_where[:, :2], z_where[:, 2:]
    inverse = torch.diag_embed(1.0 / (scale + EPSILON))
    theta = torch.cat([inverse, (-shift / (scale + EPSILON))[..., None]], -1)
    points = affine_grid(theta, [len(maps), maps.shape[1], *size], align_corners=False)
    return grid_sample(maps, points, padding_mode="zeros", align_corners=False)


class Scene(NamedTuple):
    """A whole image and its parts, `[b, 3, h, w]`, and masks of the glimpses, `[b, k, h, w]`."""

    image: Tensor
    foreground: Tensor  # on black
    background: Tensor
    masks: Tensor


def compose(
    glimpses: Tensor,
    z_pres: Tensor,
    z_depth: Tensor,
    z_where: Tensor,
    background: Tensor,
    fixed_alpha: float | None,
) -> Scene:
    """Renders scenes; see `objdisc_jax.models.gnm.glimpses`.

    Args:
        glimpses: colours and opacity of every glimpse, `[b, k, 4, p, q]`.
        z_pres: presence of each, `[b, k]`.
        z_depth: the smaller, the nearer, `[b, k]`.
        z_where: places, `[b, k, 4]`.
        background: images behind, `[b, 3, h, w]`.
        fixed_alpha: what the glimpses are taken to cover, everywhere; None computes it.
    """
    batch, size = len(background), (background.shape[-2], background.shape[-1])
    opacity = glimpses[:, :, 3:] * z_pres[..., None, None, None]
    maps = torch.cat([glimpses[:, :, :3] * opacity, opacity], 2)
    placed = place(maps.flatten(0, 1), z_where.flatten(0, 1), size).unflatten(0, (batch, -1))
    masks = placed[:, :, 3]
    importance = masks * (-z_depth).sigmoid()[..., None, None]
    weights = importance / (importance.sum(1, keepdim=True) + EPSILON)
    foreground = (weights[:, :, None] * placed[:, :, :3]).sum(1)
    alpha = masks.sum(1)
    alpha = alpha + (alpha.clamp(EPSILON, 1.0 - EPSILON) - alpha).detach()
    if fixed_alpha is not None:
        alpha = torch.full_like(alpha, fixed_alpha)
    image = foreground + (1.0 - alpha)[:, None] * background
    return Scene(image, foreground, background, masks)
