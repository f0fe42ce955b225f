"""GNM on CLEVR6 at 128x128 with the published settings.

    objdisc train --config configs/gnm_clevr6.py --config.data.path=clevr_with_masks.h5

CLEVR with masks (the published data, or look-alikes that data_scripts/render_clevr.py renders),
images of at most 6 objects; scores are those of the first 320 test images that pass. Cost: 300,000
steps of batch 64; meant for one GPU, not measured yet.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="gnm", data="clevr_with_masks")
    config.data.max_objects = 6
    config.data.num_workers = 4
    config.model.sigma = 0.4
    return config
