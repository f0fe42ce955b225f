r"""Slot Attention on Objects Room at 64x64, 7 slots: up to three objects, floor, sky and walls.

    bash data_scripts/download_multi_object.sh objects_room_train
    python data_scripts/convert_tfrecords.py --dataset objects_room \
        --input data/downloads/objects_room_train.tfrecords \
        --output data/objects_room_train.h5
    objdisc train --config configs/sa_objects_room.py

The published PyTorch code's model, for which 64x64 makes a decoder grid of 4x4. The test files:
`objdisc eval` with --config.data.variant=six_objects (empty_room, identical_color). Cost: 500,000
steps of batch 64; meant for one GPU, not measured yet.
"""

from objdisc_jax.config import experiment


def get_config():
    config = experiment(model="slot_attention", data="objects_room")
    config.model.resolution = (64, 64)
    config.model.decoder_grid = (4, 4)
    return config
