# make demo | test | fuzz | bench | weights | check-kernels | check-csrc | fuzz-ops | gpu-session | check-gpu | check-package | dist | lint | format | install | clean
#
# PYTHON        interpreter that makes the virtual environment (3.11 or later)
# TORCH_INDEX   package index that torch is taken from, for example that of a CUDA build; empty = the default one

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: demo test test-slow fuzz bench weights check-kernels check-csrc fuzz-ops gpu-session check-gpu check-package dist lint format install check-tools clean

HINT := fastamr is installed in $(VENV): type '. $(VENV)/bin/activate' and then 'fastamr --help'

install: $(STAMP)
	@$(if $(filter install,$(or $(MAKECMDGOALS),install)),echo "$(HINT)",true)

$(STAMP): pyproject.toml constraints.txt | check-tools
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade "pip>=24" "setuptools>=77" wheel
	$(RUN) -m pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX),) torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(RUN) -m fastamr info --build > $(VENV)/info.txt
	touch $(STAMP)

check-tools:
	@PYTHON="$(PYTHON)" sh tools/check_tools.sh

demo: install
	$(RUN) -m fastamr demo --out demo

# A worker a core, one thread each; the slowest are listed so that they stay few.
PYTEST := $(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal --durations 10

test: install
	$(PYTEST) tests

test-slow: install
	$(PYTEST) tests --run-slow

# Spoiled files for every loader; FASTAMR_FUZZ_INPUTS and FASTAMR_FUZZ_SECONDS bound it, FUZZ="--engine atheris" guides it.
FUZZ ?=

fuzz: install
	$(RUN) -m tests.fuzzing.run $(FUZZ)

bench: install
	$(RUN) -m pytest benchmarks --benchmark-only

# The weights that come with the package, in three hours on two cores: make weights UI_PRMD=FILE, see docs/weights.md.
UI_PRMD ?= ../shared/data/ui_prmd/ui_prmd.npz
WEIGHTS ?= --minutes 180

weights: install
	$(RUN) tools/train_weights.py body-small --data ui_prmd=$(UI_PRMD) $(WEIGHTS)

# The kernels must compile without spills by the Triton that the tests run with and by the oldest one supported.
OLD_TRITON := 3.6.0
OLD_TRITON_FOLDER := $(VENV)/triton-$(OLD_TRITON)

check-kernels: install $(OLD_TRITON_FOLDER)/.installed
	$(RUN) tools/check_kernels.py
	$(RUN) tools/check_kernels.py --triton-path $(OLD_TRITON_FOLDER)

$(OLD_TRITON_FOLDER)/.installed: | install
	$(RUN) -m pip install --quiet --no-deps --target $(OLD_TRITON_FOLDER) triton==$(OLD_TRITON)
	touch $@

# The compiled extension without torch or a GPU: the CPU kernel under sanitizers; the CUDA kernels' registers and spills,
# and their tile code run on the host.
check-csrc: install
	$(RUN) tools/check_cpu_kernel.py
	$(RUN) tools/check_cuda.py

# Random calls of the ops against float64: 20,000, and a part of them under AddressSanitizer and UndefinedBehaviorSanitizer.
fuzz-ops: install
	$(RUN) tools/fuzz_ops.py
	$(RUN) tools/fuzz_ops.py --sanitize --calls 5000

# On a machine with a GPU, where nothing is installed: with the virtual environment if there is one, else with PYTHON, which
# then needs torch, Triton and pytest.
GPU_PYTHON := $(if $(wildcard $(RUN)),$(RUN),$(PYTHON))

# All that a GPU can show in nine minutes, most important first, see docs/gpu_session.md.
GPU_SESSION ?= --out gpu-session

gpu-session:
	$(GPU_PYTHON) tools/gpu_session.py $(GPU_SESSION)

# The CUDA kernels under NVIDIA's memory and race checkers.
check-gpu:
	for tool in memcheck racecheck; do PYTORCH_NO_CUDA_MEMORY_CACHING=1 PYTHONPATH=$(CURDIR) \
	  compute-sanitizer --tool $$tool --error-exitcode 1 $(GPU_PYTHON) -m pytest \
	  tests/ops/attention/test_visible_attention_gpu.py -m "gpu and not slow" \
	  -k "not graph and not second_stream and not overlong" || exit 1; done

# Clean environments where pip resolves everything. PACKAGE="--lowest" takes the lowest versions, "--python P" another Python.
PACKAGE ?=

check-package: install
	$(RUN) tools/check_package.py $(PACKAGE)

# What a release publishes, into dist: source archive, wheel with the compiled CPU library; with the CUDA library where nvcc is.
dist: install
	$(RUN) tools/make_dist.py

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: install
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info demo runs
