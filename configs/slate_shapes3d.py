"""SLATE on 3D Shapes at 64x64, 3 slots, otherwise as configs/slate_clevr6.py.

    objdisc train --config configs/slate_shapes3d.py --config.data.path=3dshapes.h5

Every image shows one object in a room, so that slots can take the object, the floor and the walls
with the sky. 3D Shapes has no masks: the best checkpoint is that of the lowest validation loss, and
the score is the error of the two reconstructions. 256 tokens an image make a step several times
cheaper than at 128x128. Cost: meant for one GPU; neither time nor scores have been measured yet.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slate", data="shapes3d")
    config.data.num_workers = 4
    config.model.resolution = (64, 64)
    config.model.num_slots = 3
    return config
