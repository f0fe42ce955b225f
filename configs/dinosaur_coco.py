"""DINOSAUR with the MLP decoder on COCO 2017, near the published setting, for a GPU.

    objdisc features --config configs/dinosaur_coco.py
    objdisc train --config configs/dinosaur_coco.py
    objdisc eval --config configs/dinosaur_coco.py

Features of 123,287 images take 37 GB before compression; the published runs mirror half of the
images, these none. Without the first command: `--config.model.cached=False
--config.data.features=None` in a copy.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="dinosaur", data="coco")
    config.data.features = "data/coco.dino_b16.h5"
    config.data.num_workers = 8
    config.evals = ("instances",)  # as SPOT scores, crowds included; "panoptic" as VQ-VFM-OCL does
    config.batch_size = 64
    config.eval.every = 10_000
    config.visualize.every = 20_000

    model = config.model
    model.backbone = "dino_b16"
    model.cached = True
    model.num_slots = 7
    return config
