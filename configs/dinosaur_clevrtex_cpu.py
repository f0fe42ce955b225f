r"""DINOSAUR on rendered ClevrTex scenes of 3 to 6 objects, small enough for a CPU.

python data_scripts/render_clevrtex.py --num-images 5000 --max-objects 6
python -m objdisc_jax.features --config configs/dinosaur_clevrtex_cpu.py
python -m objdisc_jax.main --config configs/dinosaur_clevrtex_cpu.py
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="dinosaur", data="clevrtex")
    config.data.features = "data/clevrtex_full.dinov2_s14.h5"
    config.data.num_workers = 1
    config.batch_size = 32
    config.num_train_steps = 20_000
    config.optimizer.learning_rate = 1e-3
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 1000
    config.schedule.decay_steps = 1.0
    config.eval.every = 2000
    config.checkpoint.every = 2000
    config.visualize.every = 4000
    config.background.mode = "none"

    model = config.model
    model.cached = True
    model.slot_size = 64
    model.mlp_hidden_size = 128
    model.input_mlp = (128, 64)
    model.decoder_hidden = (256, 256)
    model.patch_stride = 2
    return config
