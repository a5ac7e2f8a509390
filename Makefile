# Podium's commands. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help

SWEEP ?= sweeps/quickstart.yaml
RECIPE ?= experiments/baseline.yaml
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
VENV := .venv
BIN := $(VENV)/bin
PODIUM := $(BIN)/podium
STAMP := $(VENV)/.installed-$(DEVICE)
DEV_STAMP := $(VENV)/.installed-dev
JAX_STAMP := .venv-jax/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export TF_CPP_MIN_LOG_LEVEL ?= 2

# `make sweep training.epochs=2` would set a make variable of that name and change nothing.
DOTTED := $(strip $(foreach name,$(.VARIABLES),$(if $(findstring .,$(name)),$(if $(filter command,$(firstword $(origin $(name)))),$(name)=$($(name))))))
ifneq ($(DOTTED),)
$(error make does not pass '$(DOTTED)' on. Write: make $(firstword $(MAKECMDGOALS)) SET='$(DOTTED)')
endif

ARGS = $(SET) $(if $(DATA),--data '$(DATA)')

.PHONY: help setup setup-dev extras sweep baseline compare promote rollback confirm rerun ui status stop doctor schema bench bench-quick test test-jax test-postgres test-cluster services services-stop faults faults-postgres fuzz clean

help:  ## List the commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Settings: SWEEP=file DATA=reference WORKERS=n TRIALS=n HOURS=h RECIPE=file RUN=id SET='key=value ...'"

setup: $(STAMP)  ## Make .venv and install Podium (nothing happens if nothing changed).

setup-dev: $(DEV_STAMP)

extras: setup  ## Install what some commands need besides: EXTRAS=export,ray,postgres,gp,cmaes.
	$(if $(EXTRAS),,$(error say which: make extras EXTRAS=export))$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'

$(BIN)/python:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, found {v[0]}.{v[1]}; name one with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(DEVICE)]'
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(DEVICE),dev]'
	@touch $@

$(JAX_STAMP): pyproject.toml constraints.txt
	test -x .venv-jax/bin/python || $(PYTHON) -m venv .venv-jax
	.venv-jax/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[jax,dev]'
	@touch $@

sweep: setup  ## Search the space of SWEEP (default: the quickstart, on digits that need no download); RESUME=1, NEW=1.
	$(PODIUM) sweep $(SWEEP) $(ARGS) $(if $(TRIALS),--trials $(TRIALS)) $(if $(HOURS),--hours $(HOURS)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(RESUME),--resume) $(if $(NEW),--new)

baseline: setup  ## Train RECIPE (default: the guide's CNN) once and log it.
	$(PODIUM) train $(RECIPE) $(ARGS) $(if $(SEED),--seed $(SEED))

confirm: setup  ## Train the leaders of SWEEP (default: the latest sweep) again on fresh seeds: TOP=, SEEDS=.
	$(PODIUM) confirm $(if $(filter command line,$(origin SWEEP)),$(SWEEP)) $(if $(TOP),--top $(TOP)) $(if $(SEEDS),--seeds $(SEEDS))

rerun: setup  ## Repeat the run RUN=id and say whether it is the same to the bit.
	$(if $(RUN),,$(error say which run: make rerun RUN=id))$(PODIUM) rerun $(RUN)

status: setup  ## Show how the latest sweep is going.
	$(PODIUM) status

stop: setup  ## End the latest sweep; finished trials stay, `make sweep RESUME=1` goes on.
	$(PODIUM) stop

compare: setup  ## Rank the latest sweep's trials (or NAMES), and write REPORT (default: report.html).
	$(PODIUM) compare $(NAMES) --report $(or $(REPORT),report.html)

promote: setup  ## Check, test once and publish the latest sweep's winner, or SWEEP=name, or RUN=id; UNCONFIRMED=, ANYWAY=, AGAIN= (why).
	$(PODIUM) promote $(if $(RUN),$(RUN),$(if $(filter command line,$(origin SWEEP)),$(SWEEP))) $(if $(MODEL),--model $(MODEL)) $(if $(UNCONFIRMED),--unconfirmed '$(UNCONFIRMED)') $(if $(ANYWAY),--anyway '$(ANYWAY)') $(if $(AGAIN),--again '$(AGAIN)')

rollback: setup  ## Swap champion and challenger of MODEL (default: the latest sweep's).
	$(PODIUM) promote --rollback $(if $(MODEL),--model $(MODEL))

ui: setup  ## Open the MLflow UI on this machine.
	$(PODIUM) ui $(if $(PORT),--port $(PORT))

doctor: setup  ## Look at this machine: versions, device, stores, space, speed; each fault with its remedy.
	$(PODIUM) doctor

schema: setup  ## Write the JSON schemas of sweep files and recipes to docs/.
	$(PODIUM) schema --out docs

test-jax: $(JAX_STAMP)  ## Run the training room's tests on JAX, in an environment without TensorFlow.
	KERAS_BACKEND=jax .venv-jax/bin/python -m pytest tests/training

SERVICES := $(BIN)/python tests/services/run_services.py
STUDY_TESTS := tests/engines tests/conformance/test_engine_conformance.py tests/coordinator tests/faults

test-postgres: setup-dev  ## Run the tests that keep a study with it in PostgreSQL, started and stopped here.
	$(SERVICES) during $(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(STUDY_TESTS)

CLUSTER ?= --toys 30 --digits 3

test-cluster: setup-dev  ## Kill and add nodes of a Ray cluster on this machine during sweeps (CLUSTER='--toys 1').
	$(BIN)/python -m pytest -m cluster tests/cluster
	$(BIN)/python tests/cluster/run_cluster_rounds.py $(CLUSTER)

services: setup-dev  ## Start PostgreSQL and an MLflow server for tests, and print the two variables to export.
	@$(SERVICES) start

services-stop: setup-dev  ## Stop them, and remove what they kept.
	@$(SERVICES) stop

FAULTS ?= --points 20 --random 1000 --each 30 --promote 20 --keras 30 --long --jobs 3 --record build/faults.jsonl

faults: setup-dev  ## Kill, fill and cut off everything, for hours; goes on where it was (FAULTS='--only NAME ...').
	nice $(BIN)/python tests/faults/run_rounds.py $(FAULTS)

FAULTS_POSTGRES ?= --each 30 --only PostgreSQL --record build/faults-postgres.jsonl

faults-postgres: setup-dev  ## Stop PostgreSQL and the MLflow server without grace during sweeps, 30 rounds of each.
	$(SERVICES) during $(BIN)/python tests/faults/run_rounds.py $(FAULTS_POSTGRES)

fuzz: setup-dev  ## Read 2,000 damaged files of each kind (ROUNDS=): sweeps, recipes, zips, npz files, checkpoints.
	PODIUM_FUZZ_ROUNDS=$(or $(ROUNDS),2000) $(BIN)/python -m pytest --timeout 3600 --durations 0 tests/fuzz

BENCH := throughput time_to_accuracy
BENCH_ALONE := warm_trial tracking_cost coordinator

BENCH_OUT ?= build/bench

bench: setup  ## Measure speed, for hours: DATA= CIFAR-10's images, PEERS= the Python that has the other tools (SEEDS=, BENCH_OUT=).
	$(if $(DATA),,$(error say where CIFAR-10's images are: make bench DATA=cifar10-images.zip))for name in $(BENCH_ALONE); do $(BIN)/python benchmarks/$$name.py --seeds $(or $(SEEDS),3) --out $(BENCH_OUT) || exit 1; done
	for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py '$(DATA)' --seeds $(or $(SEEDS),3) --out $(BENCH_OUT) || exit 1; done
	$(if $(PEERS),$(BIN)/python benchmarks/time_to_quality.py '$(DATA)' --peers '$(PEERS)' --seeds $(or $(SEEDS),3) --out $(BENCH_OUT),@echo 'Not measured: time_to_quality, which needs the other tools: PEERS=peers/bin/python (benchmarks/peers/requirements.txt)')

bench-quick: setup  ## The same in about ten minutes, one seed each, without the other tools: DATA= CIFAR-10's images.
	$(if $(DATA),,$(error say where CIFAR-10's images are: make bench-quick DATA=cifar10-images.zip))for name in $(BENCH_ALONE); do $(BIN)/python benchmarks/$$name.py --quick --seeds 1 --out $(BENCH_OUT) || exit 1; done
	for name in $(BENCH); do $(BIN)/python benchmarks/$$name.py '$(DATA)' --quick --seeds 1 --out $(BENCH_OUT) || exit 1; done

test: setup-dev  ## Check types, style and behaviour.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

clean:  ## Remove what Podium generated here: mlruns (asks first), caches, .venv.
	@read -r -p "Remove .venv, caches and every recorded run under mlruns/? [y/N] " answer && [ "$$answer" = y ]
	rm -rf $(VENV) .venv-jax .mypy_cache .ruff_cache .pytest_cache build
	find mlruns -mindepth 1 ! -name README.md -delete
