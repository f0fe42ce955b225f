"""GNM on RAVENS at 128x128 with the published settings.

    bash data_scripts/download_ravens.sh ARCHIVE
    objdisc train --config configs/gnm_ravens.py

Table and robot count as background. Cost: 300,000 steps of batch 64; meant for one GPU, not
measured yet.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="gnm", data="ravens")
    config.data.num_workers = 4
    config.model.sigma = 0.2
    return config
