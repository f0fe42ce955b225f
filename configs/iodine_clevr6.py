"""IODINE on CLEVR6 at 128x128 with the official settings.

    objdisc train --config configs/iodine_clevr6.py

CLEVR with masks (the published data, or look-alikes that data_scripts/render_clevr.py renders),
images of at most 6 objects; scores are those of the first 320 test images that pass. Cost:
1,000,000 steps of batch 32; meant for GPUs, not measured yet. The paper reports an FG-ARI of
98.8 %. The official likelihood is a logistic of scale 0.03; the paper's is
--config.model.likelihood=normal --config.model.sigma=0.1. The learning rate goes with the root of
the batch: 1e-3 times √(batch_size / 32).
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="iodine", data="clevr_with_masks")
    config.data.max_objects = 6
    config.data.num_workers = 4
    return config
