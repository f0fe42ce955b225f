"""Rendered CLEVR scenes against the published pictures: brightness, colours, visible pixels; time.

    python benchmarks/scenes.py --num-images 640

Prints the medians of background and objects beside those of genuine pictures, the numbers of
visible pixels, and the processor time per image, which other programs disturb less than the clock.
"""

import argparse
import time

# Genuine pictures, 240x320: median grey of the background, by row, at columns 5, 80, 160, 240, 315.
BACKGROUND = {
    5: (106, 106, 106, 104, 103),
    40: (104, 107, 108, 105, 100),
    80: (114, 122, 124, 123, 109),
    120: (130, 124, 133, 130, 119),
    160: (123, 126, 135, 138, 127),
    200: (121, 129, 141, 147, 138),
    235: (121, 131, 143, 149, 143),
}
COLUMNS = (5, 80, 160, 240, 315)
# Median colours of rubber and metal.
COLORS = {
    "gray": ((87, 86, 84), (70, 69, 69)),
    "red": ((119, 54, 53), (97, 42, 42)),
    "blue": ((58, 76, 123), (47, 63, 108)),
    "green": ((50, 93, 41), (40, 78, 31)),
    "brown": ((99, 76, 44), (91, 68, 37)),
    "purple": ((104, 57, 121), (85, 45, 103)),
    "cyan": ((58, 124, 123), (49, 110, 109)),
    "yellow": ((143, 137, 65), (119, 114, 52)),
}
# Visible pixels: 5 %, median, 95 %.
VISIBLE = {"large": (1004, 2062, 4054), "small": (268, 550, 1099)}


def main() -> None:
    """Renders, compares and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--num-images", type=int, default=640)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    import jax
    import numpy as np

    from objdisc_jax.render import blocks, clevr

    renderer = blocks.BlockRenderer(
        lambda number, key: clevr.record(key, number), jax.random.key(arguments.seed)
    )
    renderer(0, 1)
    parts, used, start = [], time.process_time(), time.perf_counter()
    for first in range(0, arguments.num_images, renderer.size):
        count = min(renderer.size, arguments.num_images - first)
        parts.append(clevr.arrays(*renderer(first, count)))
    used, passed = time.process_time() - used, time.perf_counter() - start
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    number = arguments.num_images
    print(
        f"{1e3 * used / number:.1f} ms of processor time an image, {number / passed:.1f} images/s"
    )

    image, labels = arrays["image"], arrays["segmentation"]
    worst = 0.0
    print("\nbackground: rendered (published)")
    for row, levels in BACKGROUND.items():
        cells = []
        for column, level in zip(COLUMNS, levels, strict=True):
            free = labels[:, row, column] == 0
            median = float(np.median(image[free, row, column].mean(-1)))
            worst = max(worst, abs(median - level))
            cells.append(f"{median:4.0f} ({level})")
        print(f"  row {row:3d}  " + "  ".join(cells))
    print(f"  largest difference {worst:.1f}")

    worst = 0.0
    print("\nobjects: rendered (published)")
    for code, (color, medians) in enumerate(COLORS.items(), start=1):
        for material, expected in enumerate(medians, start=1):
            wanted = (arrays["color"] == code) & (arrays["material"] == material)
            pixels = [image[i][labels[i] == k] for i, k in np.argwhere(wanted)]
            median = np.median(np.concatenate(pixels), axis=0)
            worst = max(worst, float(np.abs(median - expected).max()))
            print(f"  {color:7s}{clevr.MATERIALS[material - 1]:7s}{median} {expected}")
    print(f"  largest difference {worst:.1f}")

    print("\nvisible pixels at 5, 50 and 95 %: rendered (published)")
    for code, (size, expected) in enumerate(VISIBLE.items(), start=1):
        counts = arrays["visible_pixels"][arrays["size"] == code]
        print(f"  {size}  {np.quantile(counts, (0.05, 0.5, 0.95)).round()} {expected}")


if __name__ == "__main__":
    main()
