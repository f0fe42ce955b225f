r"""Spectral clustering of a frozen ViT's features on ClevrTex: the floor for what is trained.

    python data_scripts/render_clevrtex.py --num-images 5000 --max-objects 6
    objdisc train --config configs/spectral_clevrtex.py
    objdisc eval --config configs/spectral_clevrtex.py

Nothing is trained: the first command makes a run, the second scores it. With the features that
objdisc_jax.features stores, `--config.model.cached=True --config.data.features=FILE`, it is
quicker. RESULTS.md has scores.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="spectral", data="clevrtex")
    config.data.num_test_images = 320
    config.data.num_workers = 1
    config.model.block = 9
    return config
