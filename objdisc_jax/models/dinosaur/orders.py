"""The orders in which SPOT's transformer predicts patches. Nothing here needs NumPy or JAX."""

Rows = list[list[int]]


def patch_orders(height: int, width: int) -> Rows:
    """SPOT's nine orders of the patches of a grid, which are numbered row by row.

    Rows downwards, left to right; columns rightwards, downwards; columns leftwards, downwards;
    rows downwards, right to left; columns leftwards, upwards; rows upwards, right to left; columns
    rightwards, upwards; rows upwards, left to right; a spiral from the middle outwards that ends
    at the top right.
    """
    grid = [[row * width + column for column in range(width)] for row in range(height)]
    mirrored = [row[::-1] for row in grid]
    orders = [
        grid,
        _columns(grid),
        _columns(mirrored),
        mirrored,
        _columns(mirrored[::-1]),
        mirrored[::-1],
        _columns(grid[::-1]),
        grid[::-1],
    ]
    spiral, rest = [], grid
    while rest:  # down the right side, whose place the bottom takes
        spiral += [row[-1] for row in rest]
        rest = _columns([row[:-1] for row in rest])[::-1]
    return [*([patch for row in order for patch in row] for order in orders), spiral[::-1]]


def _columns(rows: Rows) -> Rows:
    return [list(column) for column in zip(*rows, strict=True)]
