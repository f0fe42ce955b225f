"""GNM on Tetrominoes, small enough to train on two CPU cores in minutes.

    python data_scripts/generate_tetrominoes.py
    objdisc train --config configs/gnm_tetrominoes.py

Cost: 20 to 40 minutes on one core, as fast as it is. Expect an FG-ARI of 0.7 to 0.77, nine of ten
images counted right and a squared error of 0.0025 per pixel and channel (RESULTS.md). Adam in place
of RMSprop, and lighter weights on what glimpses look like, make it quick.

Four cells for three pieces, and windows of 20x20 pixels, which hold any piece: both keep a piece
from being made up of several glimpses, which is otherwise found first and never left. The
background is one for all images: its KL weight leaves it no room. With a free background the model
hides a coloured one behind black glimpses, which pays sooner than finding the pieces.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="gnm", data="tetrominoes")
    config.batch_size = 32
    config.num_train_steps = 24_000
    config.optimizer.name = "adam"
    config.optimizer.kwargs = {"b2": 0.99}
    config.optimizer.learning_rate = 1e-3
    config.schedule.name = "cosine"
    config.schedule.warmup_steps = 300
    config.schedule.decay_steps = 1.0
    config.eval.every = 2000
    config.checkpoint.every = 2000
    config.visualize.every = 4000
    config.data.num_workers = 0

    model = config.model
    model.resolution = (35, 35)
    model.grid = (2, 2)
    model.encoder_channels = (32, 64, 64, 64, 64)
    model.encoder_kernels = (5, 3, 3, 3, 3)
    model.encoder_strides = (3, 1, 3, 2, 1)
    model.draw_steps = 2
    model.global_size = 16
    model.global_hidden = (128,)
    model.global_decoder_hidden = (128,)
    model.local_channels = (128, 128)
    model.what_size = 16
    model.glimpse_channels = (128, 128)
    model.glimpse_kernels = (1, 1, 1)  # each layer sees one pixel
    model.glimpse_upscales = (1, 1, 20)
    model.background_size = 2
    model.background_hidden = (64,)
    model.background_prior_hidden = (32,)
    model.background_channels = (16,)
    model.background_kernels = (1, 3)
    model.background_upscales = (5, 7)
    model.sigma = 0.15
    model.early_steps = 1000
    model.initial_size = 0.3  # 20 pixels
    model.aux_where_mean = (0.3, 0.0, 0.0, 0.0)
    model.aux_where_std = (0.1, 0.05, 0.5, 0.5)
    model.beta_aux_where = (1.0, 1.0, 0, 1)
    model.aux_pres = (0.5, 0.001, 1000, 4000)
    model.beta_aux_pres = 3.0
    model.beta_what = 0.3
    model.beta_aux_what = 0.1
    model.beta_aux_bg = (50.0, 50.0, 0, 1)  # one background for all images: it is black
    model.beta_global = (0.0, 1.0, 0, 6000)
    model.temperature = (1.0, 0.5, 1000, 6000)
    return config
