#!/usr/bin/env bash
# Everything that needs a GPU, in one command: tests, step times, a training run.
#
#   PYTHON=python3 OUT=gpu_results MINUTES=6 bash benchmarks/gpu.sh [tests] [bench] [train]
#
# Without names it does all three. Each part takes under nine minutes; training goes on from its
# last checkpoint, so that a second call adds to it. Results go to $OUT.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
out=${OUT:-gpu_results}
minutes=${MINUTES:-6}
parts=${*:-tests bench train}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
mkdir -p "$out"

"$python" -c "import jax; assert jax.default_backend() == 'gpu', jax.devices()" || {
    echo "JAX sees no GPU. Install the CUDA extra: make setup ACCELERATOR=cuda12"
    exit 1
}
status=0
for part in $parts; do
    case $part in
    tests) # published numbers need full float32 products
        JAX_DEFAULT_MATMUL_PRECISION=highest timeout 540 "$python" -m pytest -m "not slow" -o addopts=-q \
            tests/nn tests/models tests/metrics tests/training 2>&1 | tee "$out/tests.log" || status=1
        ;;
    bench)
        for dtype in float32 bfloat16; do
            timeout 250 "$python" benchmarks/step_time.py --device cuda --batch-size 64 \
                --dtype "$dtype" --csv "$out/step_time.csv" 2>&1 | tee -a "$out/bench.log" || status=1
        done
        ;;
    train)
        data=$out/tetrominoes.h5
        [ -f "$data" ] || "$python" data_scripts/generate_tetrominoes.py --output "$data"
        # SIGTERM makes the run save and end.
        timeout --signal=TERM --kill-after=60 "${minutes}m" "$python" -m objdisc_jax.main \
            --config configs/sa_tetrominoes.py --workdir "$out/sa_tetrominoes" \
            --config.data.path="$data" 2>&1 | tee -a "$out/train.log"
        "$python" -m objdisc_jax.main --config configs/sa_tetrominoes.py --mode eval \
            --workdir "$out/sa_tetrominoes" --config.data.path="$data" | tee -a "$out/train.log" || status=1
        ;;
    *)
        echo "unknown part $part; parts are tests, bench, train"
        status=1
        ;;
    esac
done
exit $status
