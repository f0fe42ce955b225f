# make demo   set up, make data, train, score and draw: about ten minutes on two CPU cores
# make test   the test suite
# make setup  only the virtual environment, in .venv
# make lint   ruff and pyright
# make docs   the pages of docs/ as a site, in build/site
# make gpu    every check and benchmark that needs a GPU
#
# PYTHON=python3.12       interpreter to use (default: the first of 3.11, 3.12, ... that is found)
# ACCELERATOR=cuda13      cpu, cuda12 or cuda13 (default: cuda12 if nvidia-smi answers, else cpu)
# TORCH="torch==2.13.0"   what pip is asked for to get PyTorch. Its default build for Linux brings CUDA
#                         along; a CPU build: TORCH="torch==2.13.0+cpu --extra-index-url URL", with
#                         the URL of CPU wheels that PyTorch's installation page names

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
ACCELERATOR ?= $(if $(shell nvidia-smi -L 2>/dev/null),cuda12,cpu)
TORCH ?= torch==2.13.0
READY := $(VENV)/.ready-$(ACCELERATOR)

DATA := data/tetrominoes.h5
RUN := runs/demo

.PHONY: setup demo test test-slow lint docs gpu

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python >= 3.11 was found. Install one, or name it: make setup PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv; elsewhere name another Python: make setup PYTHON=..."; exit 1; }
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable ".[test$(if $(filter-out cpu,$(ACCELERATOR)),$(comma)$(ACCELERATOR))]"
	@touch $@

comma := ,

$(DATA): | $(READY)
	$(BIN)/python data_scripts/generate_tetrominoes.py --output $@

# Two devices on the CPU: each computes half a batch, faster than two threads sharing one.
demo: export JAX_NUM_CPU_DEVICES ?= 2
demo: $(READY) $(DATA)
	$(BIN)/python -m objdisc_jax.main --config configs/demo.py --workdir $(RUN)
	$(BIN)/python -m objdisc_jax.main --config configs/demo.py --workdir $(RUN) --mode eval --split test
	@echo "curves   $(RUN)/curves.png"
	@echo "watch    $(BIN)/tensorboard --logdir $(RUN)/tensorboard"
	@echo "next     $(BIN)/python -m objdisc_jax.predict --workdir $(RUN) --input YOUR_IMAGES --output segmented"

test: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-slow: $(READY)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m slow

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

docs: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	$(BIN)/python -m mkdocs build --strict

gpu:
	bash benchmarks/gpu.sh
