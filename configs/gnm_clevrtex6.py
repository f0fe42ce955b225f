"""GNM on ClevrTex6 at 128x128 with the published settings.

    bash data_scripts/download_clevrtex.sh full (or python data_scripts/render_clevrtex.py)
    objdisc train --config configs/gnm_clevrtex6.py

Images of at most 6 objects. Cost: 300,000 steps of batch 32 as in the published runs; meant for one
GPU, not measured yet.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="gnm", data="clevrtex")
    config.batch_size = 32
    config.data.max_objects = 6
    config.data.num_workers = 4
    config.model.sigma = 0.7
    return config
