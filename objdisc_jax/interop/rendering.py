"""Placing glimpses in an image with PyTorch's own sampler."""

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
