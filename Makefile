# Every target is a thin line over a Python entry point that works alone; see README.md.
# Variables: DATASET= DATA= SEED= SEEDS= REQUESTS= PORT= RELEASE= HOLDOUT= PROTOCOL= STORE= LOCAL= STACK=
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev data clean-data demo offline publish rollback serve check evaluate up down test pytest lint audit bench stop

PYTHON ?= $(shell command -v python3.11 || command -v python3)
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
PORT ?= 5000
SEEDS ?= 3
REQUESTS ?= 1000

# DATASET=… DATA=… SEED=… HOLDOUT=… PROTOCOL=… STORE=… become the settings that they stand for; unset ones leave the settings alone.
export_if = $(if $($(1)),$(eval export $(2) := $($(1))))
$(call export_if,DATASET,MARQUEE_DATA__DATASET)
$(call export_if,DATA,MARQUEE_DATA__SOURCE)
$(call export_if,STORE,MARQUEE_DATA__STORE)
$(call export_if,SEED,MARQUEE_SEED)
$(call export_if,HOLDOUT,MARQUEE_SPLIT__HOLDOUT)
$(call export_if,PROTOCOL,MARQUEE_SPLIT__PROTOCOL)

# While the Docker stack is up, publish, rollback and check mean it; STACK=0 means the stores of the settings all the same.
STACK ?= $(shell grep -qs '^COMPOSE_FILE=' docker/.env && echo 1 || echo 0)
ON_STACK := $(filter-out 0,$(STACK))

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 24

.venv/.setup: requirements.txt requirements-text.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "Marquee needs Python 3.11; call make PYTHON=/path/to/python3.11")'
	test -x $(PY) || $(PYTHON) -m venv .venv
	@echo "installing the pinned requirements into .venv" >&2
	$(PIP) install -r requirements.txt
	$(PIP) install --no-deps -r requirements-text.txt
	$(PIP) install --no-deps --no-build-isolation -e .
	touch $@

.venv/.setup-dev: .venv/.setup requirements-dev.txt requirements-distributed.txt
	$(PIP) install -r requirements-dev.txt
	$(PIP) install --no-deps -r requirements-distributed.txt
	touch $@

# the auditor in an environment of its own: it is not part of what it audits
.venv-audit/.setup: requirements-audit.txt
	test -x .venv-audit/bin/python || $(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip --disable-pip-version-check --quiet install -r requirements-audit.txt
	touch $@

setup: .venv/.setup  ## the environment for running
setup-dev: .venv/.setup-dev  ## the environment for tests and benchmarks

data: .venv/.setup  ## fetch and check the raw data, nothing else
	@$(PY) offline/datasets/s0_fetch_data.py

clean-data: .venv/.setup  ## remove what was fetched or made
	@$(PY) offline/datasets/s0_fetch_data.py --clean

demo: .venv/.setup  ## everything: data, every stage, release, publish, server, one request, parity check
	@$(PY) offline_to_online/demo.py

offline: .venv/.setup  ## data to a release, no servers
	@$(PY) offline/s0_run_offline.py

publish: .venv/.setup  ## RELEASE (default: the newest) into every store, verified, then live
	@$(PY) $(if $(ON_STACK),docker/stack.py publish,offline_to_online/publish.py) $(if $(RELEASE),--release $(RELEASE))

rollback: .venv/.setup  ## the release before is live again (or RELEASE=…)
	@$(PY) $(if $(ON_STACK),docker/stack.py rollback,offline_to_online/publish.py --rollback) $(if $(RELEASE),--release $(RELEASE))

serve: .venv/.setup  ## the server on the live release, in the foreground
	@$(PY) online/main/s1_server.py --port $(PORT)

check: .venv/.setup  ## offline against online scores on real users
	@$(PY) $(if $(ON_STACK),docker/stack.py check,offline_to_online/rank/s3_check_offline_and_online.py) --requests $(REQUESTS)

evaluate: .venv/.setup  ## ranking, recall and the whole chain, mean and spread over SEEDS
	@$(PY) offline_to_online/rank/s4_evaluate_chain.py --seeds $(SEEDS)

up: .venv/.setup  ## the Docker stack, healthy (LOCAL=1: Elasticsearch without TLS and password)
	@$(PY) docker/stack.py up $(if $(LOCAL),--local)

down: .venv/.setup  ## the Docker stack, gone
	@$(PY) docker/stack.py down

test: .venv/.setup-dev  ## lint, types and all tests
	@$(MAKE) --no-print-directory -j 2 lint pytest  # mypy keeps one core busy for a while, and the tests have two

pytest: .venv/.setup-dev
	@$(PY) -m pytest -n 2 --dist loadfile

lint: .venv/.setup-dev  ## ruff and mypy
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check --quiet .
	@$(PY) -m mypy data_exchange_center offline offline_to_online online benchmarks docker

audit: .venv/.setup-dev .venv-audit/.setup  ## secrets in the repository and the image, known weaknesses of the dependencies
	@$(PY) benchmarks/security.py

bench: .venv/.setup-dev  ## every benchmark, one JSON line each
	@$(PY) benchmarks/run_all.py

stop: .venv/.setup  ## stop the embedded Redis
	@$(PY) online/stores/embedded_redis.py --stop
