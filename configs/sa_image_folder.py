"""Slot Attention on a folder of your own images, of any kinds and sizes, at 128x128.

    objdisc inspect --config configs/sa_image_folder.py --config.data.path=FOLDER
    objdisc train --config configs/sa_image_folder.py --config.data.path=FOLDER

One slot more than there are things in an image is a good start: --config.model.num_slots=7.
Images that cannot be read are left out. Cost: 500,000 steps of batch 64; meant for one GPU.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="image_folder")
    config.data.on_bad_image = "skip"
    config.data.num_workers = 8
    return config
