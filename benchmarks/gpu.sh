#!/usr/bin/env bash
# Everything that needs a GPU, in one command: tests, rendering, speed, scaling, training runs, and
# what of it meets the bars (gpu_bars.py).
#
#   PYTHON=python3 RESULTS=gpu_results MINUTES=6 bash benchmarks/gpu.sh [PART ...]
#
# Parts: tests, scenes, train_CONFIG for every config of published size whose data is generated
# here, speed_MODEL and scaling_MODEL for every model but DINOSAUR, bars; without names, all of them.
# Each takes MINUTES and three more at most. What a part has not done when its time is up, another
# call does: rows that the CSV files have are not measured again, rendering goes on where it was, and
# training from its last checkpoint. Results go to $RESULTS, with hardware and versions, data to
# data/. The bars alone, and training alone:
#
#   bash benchmarks/gpu.sh speed_slot_attention speed_gnm scenes train_sa_clevr6 bars
#   bash benchmarks/gpu.sh train_sa_clevr6 train_slate_clevr6
#
# A GPU of one's own trains a config to its end in one slice, and what is better than the weights that
# come along takes their place:
#
#   MINUTES=3000 bash benchmarks/gpu.sh train_gnm_clevr6
#   objdisc convert to-pretrained --workdir gpu_results/train_gnm_clevr6 --output ...
#
# On a CPU, to try it:
#
#   DEVICE=cpu BATCH=4 ROUNDS=1 STEPS=1 MINUTES=1 IMAGES=64 EXTRA="--config.batch_size=4" \
#       SETTINGS='{"resolution": [32, 32], "decoder_grid": [2, 2], "decoder_channels": [8, 8, 8, 8, 8]}' \
#       bash benchmarks/gpu.sh scenes speed_slot_attention train_sa_clevr6_cpu bars
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
out=${RESULTS:-gpu_results}
minutes=${MINUTES:-6}
device=${DEVICE:-cuda}
sizes=(--device "$device" ${BATCH:+--batch-size "$BATCH"} --rounds "${ROUNDS:-5}" --steps "${STEPS:-20}")
models="slot_attention slate gnm iodine"
configs="sa_clevr6 sa_clevr6_cpu sa_clevr10 sa_clevrtex sa_tetrominoes sa_multi_dsprites sa_shapes3d
    slate_clevr6 slate_shapes3d gnm_clevr6 gnm_clevrtex6 iodine_clevr6 iodine_multi_dsprites"
images=${IMAGES:-50000}
parts=${*:-tests scenes $(printf 'train_%s ' $configs) $(printf 'speed_%s ' $models) $(printf 'scaling_%s ' $models) bars}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
mkdir -p "$out"

if [ "$device" = cuda ]; then
    "$python" -c "
import beartype, clu, flax, ml_collections, optax, orbax.checkpoint, pytest, sklearn, torch, xdist
import jax
assert jax.default_backend() == 'gpu', jax.devices()" || {
        echo "A package is missing, or JAX sees no GPU: make setup ACCELERATOR=cuda12 (or cuda13)"
        exit 1
    }
fi
status=0

# What is left of a part's time; a part that has none left fails, and another call goes on.
begin() { deadline=$((SECONDS + 60 * minutes + 170)); }
within() {
    local left=$((deadline - SECONDS))
    if ((left < 5)); then
        echo "No time left for: $*. Call this part again."
        status=1
    else
        timeout --kill-after=5 "$left" "$@" || status=1
    fi
}

for part in $parts; do
    begin
    case $part in
    tests) # published numbers need full float32 products
        JAX_DEFAULT_MATMUL_PRECISION=highest XLA_PYTHON_CLIENT_PREALLOCATE=false \
            within "$python" -m pytest -m "not slow" -o addopts=-q --numprocesses 4 tests/nn tests/models tests/metrics tests/training tests/render > >(tee "$out/tests.log") 2>&1
        ;;
    speed_*)
        for precision in bfloat16 tf32 float32; do
            for side in jax torch torch-compile; do
                within "$python" benchmarks/training_speed.py --model "${part#speed_}" "${sizes[@]}" \
                    --precision "$precision" --side "$side" --settings "${SETTINGS:-{\}}" --csv "$out/speed.csv" \
                    > >(tee -a "$out/speed.log") 2>&1
            done
        done
        ;;
    scaling_*)
        within "$python" benchmarks/scaling.py --model "${part#scaling_}" "${sizes[@]}" \
            --settings "${SETTINGS:-{\}}" --csv "$out/scaling.csv" > >(tee -a "$out/scaling.log") 2>&1
        ;;
    scenes)
        within "$python" benchmarks/scenes.py --num-images "$((images < 5120 ? images : 5120))" \
            > >(tee "$out/scenes.log") 2>&1
        ;;
    train_*)
        config=${part#train_}
        case $config in # what makes its data
        *_clevr6 | *_clevr6_cpu)
            data=data/clevr6-$images.h5
            make=(render_clevr.py --max-objects 6 --num-images "$images")
            ;;
        *_clevr10)
            data=data/clevr10-$images.h5
            make=(render_clevr.py --num-images "$images")
            ;;
        *_clevrtex)
            data=data/clevrtex-$images
            make=(render_clevrtex.py --num-images "$images")
            ;;
        *_clevrtex6)
            data=data/clevrtex6-$images
            make=(render_clevrtex.py --max-objects 6 --num-images "$images")
            ;;
        *_tetrominoes)
            data=data/tetrominoes.h5
            make=(generate_tetrominoes.py)
            ;;
        *_multi_dsprites)
            data=data/multi_dsprites-$images.h5
            make=(generate_multi_dsprites.py --num-images "$images")
            ;;
        *_shapes3d)
            data=data/shapes3d-$images.h5
            make=(render_shapes3d.py --num-images "$images")
            ;;
        *)
            echo "$part: nothing here generates the data of configs/$config.py"
            status=1
            continue
            ;;
        esac
        there=$data # or, of a folder, what appears in it when all is there
        case $config in *_clevrtex | *_clevrtex6) there=$data/clevrtex_full ;; esac
        log=$out/$part.log
        run=(-m objdisc_jax.main --config "configs/$config.py" --workdir "$out/$part")
        run+=(--config.data.path="$data" ${EXTRA:-})
        case $config in *_clevr6_cpu) run+=(--config.data.image_size="(240, 320)" --config.data.num_workers=8) ;; esac
        [ -e "$there" ] || within "$python" "data_scripts/${make[0]}" "${make[@]:1}" --output "$data" \
            > >(tee -a "$log") 2>&1
        if ! [ -e "$there" ]; then
            echo "$part: the data is not all there yet. Call this part again."
            status=1
            continue
        fi
        # Twice: the second start finds the programs in the cache. SIGTERM makes a run save and end,
        # with 0; what is left of the part's time is for the evaluation.
        left=$((deadline - SECONDS - 150))
        total=$((60 * minutes < left ? 60 * minutes : left))
        for seconds in $((total - 60)) 60; do
            date +"%T start" >>"$log"
            timeout --preserve-status --signal=TERM --kill-after=60 "$((seconds > 20 ? seconds : 20))" \
                "$python" "${run[@]}" > >(tee -a "$log") 2>&1 || status=1
        done
        within "$python" "${run[@]}" --mode eval > >(tee -a "$log") 2>&1
        ;;
    bars)
        "$python" benchmarks/gpu_bars.py "$out" > >(tee "$out/bars.log") 2>&1 || status=1
        ;;
    *)
        echo "unknown part $part; parts are tests, scenes, train_CONFIG, speed_MODEL, scaling_MODEL, bars"
        status=1
        ;;
    esac
done
exit $status
