"""What the benchmarks count and keep."""

import sys
from pathlib import Path

import pytest

from tests.conftest import small_config

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import step_time
import training_speed


def test_row_is_found_again_by_its_key(tmp_path):
    file = tmp_path / "rows.csv"
    row = {"model": "slate", "settings": '{"num_slots": 3}', "step_ms": "1.5"}
    assert step_time.find(file, row, ["model", "settings"]) is None
    step_time.append(file, [row | {"model": "gnm"}])
    step_time.append(file, [row])
    assert step_time.find(file, row | {"step_ms": "2.0"}, ["model", "settings"]) == row
    assert step_time.find(file, row | {"settings": "{}"}, ["model", "settings"]) is None


@pytest.mark.slow
def test_every_block_of_a_loop_counts():
    def count(num_blocks):
        config = small_config("slate")
        config.model.num_decoder_blocks = num_blocks
        config.batch_size = 2
        return training_speed.count_flops(config)

    one, two, three = (count(num_blocks) for num_blocks in (1, 2, 3))
    assert three - two == pytest.approx(two - one, rel=0.01)
    assert two > 1.1 * one
