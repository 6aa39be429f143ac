# Every target sets up what it needs; `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
EXTRAS := server,engine,embedded,s3,tables,demo,dev
JOBS   := 3

.DEFAULT_GOAL := help
.PHONY: help setup demo up test check bench chaos scale docs migrate clean

help: ## list these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

setup: $(STAMP) ## fill .venv with every pinned package

# torch first: from its own pin alone, so that no other package chooses its build.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: setup ## annotate the standard library's documentation, end to end, in a temporary directory
	$(BIN)/python -m examples.stdlib.demo

up: setup ## run the whole stack here until Ctrl-C (ARGS="--model fake --port 0")
	$(BIN)/penstock up $(ARGS)

test: setup ## run every test (FAST=1 leaves out the slow ones, JOBS=0 in one process, ARGS are pytest's)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(if $(FAST),-m "not slow") $(ARGS)

check: setup ## lint, types, floors, generated docs, compose files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy penstock api workers batching models storage examples benchmarks deploy docs tests
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m docs.generate --check
	$(BIN)/python -m deploy.check

bench: setup ## our engine beside its rivals on this CPU, an hour and more (QUICK=1: under 5 minutes)
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(ARGS)

chaos: setup ## break everything at random for two minutes, then count what was lost (ARGS="--seconds 600 --seed 7 --model tiny")
	$(BIN)/python -m tests.chaos $(ARGS)

scale: setup ## a job of a million prompts through the service, and jobs without Redis (ARGS="--rows 100000")
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.scale $(ARGS)

docs: setup ## write docs/reference/ anew from the code
	$(BIN)/python -m docs.generate

migrate: setup ## bring the database of PENSTOCK_DATABASE__URL to the newest schema
	$(BIN)/alembic upgrade head

clean: ## remove what the other targets made
	rm -rf $(VENV) .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist *.egg-info
