r"""DINOSAUR on rendered ClevrTex scenes of 3 to 6 objects, small enough to train on a CPU.

    python data_scripts/render_clevrtex.py --num-images 5000 --max-objects 6
    objdisc features --config configs/dinosaur_clevrtex_cpu.py
    objdisc train --config configs/dinosaur_clevrtex_cpu.py

Both last commands need the weights of DINOv2's ViT-S/14, from the Hugging Face Hub or with
`--config.model.weights=FILE`; the third reads features alone. They are those of the ninth block,
which tell things apart better than the last does (configs/spectral_clevrtex.py). RESULTS.md has
times and scores.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="dinosaur", data="clevrtex")
    config.data.features = "data/clevrtex_full_dinov2_s14.h5"
    config.data.num_test_images = 320
    config.data.num_workers = 0  # features are read quickly
    config.batch_size = 16
    config.num_train_steps = 40_000
    config.optimizer.learning_rate = 1e-3
    config.optimizer.clip_norm = 1.0
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 1000
    config.schedule.decay_steps = 1.0
    config.eval.every = 2000
    config.eval.num_images = 160
    config.checkpoint.every = 2000
    config.visualize.every = 4000

    model = config.model
    model.cached = True
    model.block = 9
    model.normalize_target = True
    model.slot_size = 64
    model.mlp_hidden_size = 128
    model.input_mlp = (128, 64)
    model.decoder_hidden = (256, 256)
    model.patch_stride = 2
    model.top_k = 3
    return config
