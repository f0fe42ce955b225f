"""DINOSAUR with the MLP decoder on Pascal VOC 2012, near the published setting, for a GPU.

    objdisc features --config configs/dinosaur_voc.py
    objdisc train --config configs/dinosaur_voc.py
    objdisc eval --config configs/dinosaur_voc.py

It needs the list of images `trainaug.txt`. The published runs crop the images at random, mirror
half of them, and train for 300,000 steps; crops here are of the middle.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="dinosaur", data="voc")
    config.data.train_list = "trainaug"
    config.data.features = "data/voc.dino_s16.h5"
    config.data.num_workers = 4
    config.evals = ("instances",)  # as OCLF and SPOT score; "panoptic" as VQ-VFM-OCL does
    config.batch_size = 64
    config.num_train_steps = 300_000
    config.schedule.warmup_steps = 10_000
    config.schedule.decay_steps = 100_000
    config.eval.every = 10_000
    config.visualize.every = 20_000

    model = config.model
    model.backbone = "dino_s16"
    model.cached = True
    model.input_mlp = (384, 256)
    model.num_slots = 6
    return config
