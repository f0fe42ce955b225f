r"""Spectral clustering of a frozen ViT's features on your own photographs, with nothing to train.

    objdisc train --config configs/spectral_photographs.py --config.data.path=photos \
        --config.model.weights=dinov2_small.safetensors
    objdisc predict --workdir runs/spectral_photographs --input photos \
        --output segmented --num-slots 5

The first command makes a run, with the weights of DINOv2's ViT-S/14 in Hugging Face's layout, the
second divides every photograph into as many segments as it is told.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="spectral", data="image_folder")
    config.batch_size = 1
    config.data.num_workers = 0
    config.eval.num_images = 8
    config.model.resolution = (448, 448)  # 32x32 patches
    config.model.num_slots = 6
    return config
