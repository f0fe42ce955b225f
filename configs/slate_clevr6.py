r"""SLATE on CLEVR6 at 128x128, with the settings of the published PyTorch code.

    objdisc train --config configs/slate_clevr6.py \
        --config.data.path=clevr_with_masks.h5

CLEVR with masks (the published data, or look-alikes that data_scripts/render_clevr.py renders),
images of at most 6 objects, 7 slots, a vocabulary of 4096 tokens, 8 transformer blocks. The dVAE
learns at a constant rate of 3e-4, all else at 1e-4 after a warm-up of 30,000 steps, in which the
Gumbel-softmax's temperature falls from 1 to 0.1. The masks are the attention of 32x32 tokens. Cost:
meant for one GPU; neither time nor scores have been measured yet.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slate", data="clevr_with_masks")
    config.data.max_objects = 6
    config.data.num_workers = 4
    return config
