r"""Slot Attention on Multi-dSprites at 64x64 as in the 2020 paper (arXiv 2006.15055, appendix).

    bash data_scripts/download_multi_object.sh multi_dsprites_colored_on_grayscale
    python data_scripts/convert_tfrecords.py --dataset multi_dsprites \
        --input data/downloads/multi_dsprites_colored_on_grayscale.tfrecords \
        --output data/multi_dsprites_colored_on_grayscale.h5
    (or all of it: python data_scripts/generate_multi_dsprites.py)
    objdisc train --config configs/sa_multi_dsprites.py

Variants: --config.data.variant=colored_on_colored or binarized. Cost: 500,000 steps of batch 64;
meant for one GPU, not measured yet. The paper reports an FG-ARI of 91.3 % on the 320 test images.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="multi_dsprites")
    model = config.model
    model.resolution = (64, 64)
    model.num_slots = 6
    model.gradient = "unrolled"
    model.encoder_channels = (32, 32, 32, 32)
    model.encoder_norm = True
    model.activation = "relu"
    model.decoder_channels = (32, 32, 32)
    model.decoder_strides = (1, 1, 1)
    model.decoder_grid = (64, 64)
    return config
