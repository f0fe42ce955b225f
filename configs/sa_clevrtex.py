r"""Slot Attention on ClevrTex at 128x128, 11 slots.

    bash data_scripts/download_clevrtex.sh full (or python data_scripts/render_clevrtex.py)
    objdisc train --config configs/sa_clevrtex.py

Variants: --config.data.variant=pbg (vbg, grassbg, camo); `outd` only to score on:

    objdisc eval --config configs/sa_clevrtex.py \
        --config.data.variant=outd

Cost: 500,000 steps of batch 64; meant for one GPU, not measured yet. The benchmark's paper (arXiv
2111.10265) reports an FG-ARI of 62 % for Slot Attention.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="clevrtex")
    config.data.num_workers = 8
    config.model.num_slots = 11
    return config
