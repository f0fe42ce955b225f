"""Segmenting images with a trained run: batches through the model, and the files that are kept."""

OUTPUTS = {
    "labels": "label map, an indexed PNG of the image's size",
    "overlay": "the image, its segments tinted and outlined",
    "panel": "reconstruction, masks and what else the model shows",
    "npz": "masks, slots and what else the model says, as arrays",
}
"""What can be kept of an image."""
