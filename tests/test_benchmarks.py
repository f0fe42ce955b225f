"""What the benchmarks count and keep."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import small_config

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import gpu_bars
import step_time
import training_speed

ROOT = Path(__file__).parents[1]


def test_row_is_found_again_by_its_key(tmp_path):
    file = tmp_path / "rows.csv"
    row = {"model": "slate", "settings": '{"num_slots": 3}', "step_ms": "1.5"}
    assert step_time.find(file, row, ["model", "settings"]) is None
    step_time.append(file, [row | {"model": "gnm"}])
    step_time.append(file, [row])
    assert step_time.find(file, row | {"step_ms": "2.0"}, ["model", "settings"]) == row
    assert step_time.find(file, row | {"settings": "{}"}, ["model", "settings"]) is None


@pytest.mark.slow
@pytest.mark.parametrize("side", ["jax", "torch"])
def test_speed_of_a_training_step_is_measured(side, tmp_path):
    file = tmp_path / "speed.csv"
    settings = '{"resolution": [16, 16], "decoder_grid": [1, 1], "num_slots": 2, "slot_size": 8}'
    command = [sys.executable, "benchmarks/training_speed.py", "--model=slot_attention"]
    command += [f"--side={side}", "--device=cpu", "--rounds=1", "--steps=1", "--batch-size=2"]
    command += ["--workers=0", f"--settings={settings}", f"--csv={file}"]
    for _ in range(2):  # the second finds the row
        subprocess.run(command, check=True, cwd=ROOT)
    (row,) = csv.DictReader(file.read_text().splitlines())
    assert float(row["step_ms"]) > 0
    assert row["model"] == "slot_attention"
    if side == "jax":
        assert float(row["gflop_per_step"]) > 0
        assert float(row["loader_images_per_second"]) > 0


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


def test_bars_are_judged_by_what_gpu_sh_wrote(tmp_path, capsys, monkeypatch):
    def row(side, precision, step_ms, settings="{}"):
        return {
            "model": "slot_attention",
            "side": side,
            "precision": precision,
            "settings": settings,
            "hardware": "NVIDIA H200",
            "step_ms": step_ms,
            "peak_memory_gib": "15.5",
        }

    rows = [row("jax", "bfloat16", "30"), row("torch-compile", "bfloat16", "34.9")]
    rows += [row("jax", "tf32", "50"), row("torch", "tf32", "50.5")]
    rows += [row("jax", "tf32", "500", settings='{"num_slots": 3}')]  # of another size
    step_time.append(tmp_path / "speed.csv", rows)
    (tmp_path / "scenes.log").write_text("rendered 2900.0 images/s, 1.0 ms\n")
    (tmp_path / "train_sa_clevr6.log").write_text(
        "23:59:10 start\n23:59:50 Training on 1 device (gpu) of 1 host.\n"
        "00:01:10 The first step took 80.0 s, compilation included.\n"
        "00:05:00 start\n00:05:30 The first step took 3.0 s, compilation included.\n"
    )
    monkeypatch.setattr("sys.argv", ["gpu_bars.py", str(tmp_path)])
    assert gpu_bars.main() == 1
    table = capsys.readouterr().out.splitlines()
    assert table[0] == "hardware: NVIDIA H200"
    found = {line[:64].rstrip(): line[64:].split() for line in table[2:]}
    bfloat16 = found["Slot Attention, bfloat16, of torch.compile's step"]
    assert bfloat16 == ["0.8596", "≤", "0.75", "MISSED"]
    assert found["Slot Attention, tf32, of PyTorch's step"] == ["0.9901", "≤", "1", "met"]
    assert found["Slot Attention, tf32, peak memory"] == ["15.5", "≤", "16", "GiB", "met"]
    assert found["GNM, tf32, of PyTorch's step"] == ["≤", "0.3", "not", "measured"]
    assert found["train_sa_clevr6: start to first step"] == ["120", "s"]
    assert found["train_sa_clevr6: the same, warm cache"] == ["30", "≤", "60", "s", "met"]
    assert found["scenes rendered"] == ["2900", "≥", "3000", "images/s", "MISSED"]
