# raytape: everything a user or a developer types. `make` alone lists the targets.
SHELL := bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)
ARGS ?=

.PHONY: help setup up down status logs test dashboard-tests lint types bench chaos dashboard lock clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  \033[1mmake %-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is missing (part of every target that needs it)
	@cluster/setup.sh python java node kinesis dashboard spark

up: setup ## start the whole platform, with its first model, on this machine
	@raytape up $(ARGS)

down: ## drain and stop all of it
	@if [ -x .venv/bin/raytape ]; then raytape down; else echo "nothing is installed, nothing runs"; fi

status: setup ## one report of every part, with all addresses
	@raytape status

logs: setup ## follow the logs of every part
	@raytape logs --follow

test: setup ## lint, types, unit, integration and browser tests (runs beside a live platform)
	@cluster/setup.sh browser
	@$(MAKE) --no-print-directory -j2 -O lint types dashboard-tests
	@python -m pytest $(ARGS)

dashboard-tests: setup
	@cd dashboard && npm run --silent typecheck && npm run --silent types:check && npm run --silent test

lint: setup ## ruff over the Python, the linter of the dashboard over the TypeScript
	@ruff check -q . && ruff format -q --check . && cd dashboard && npm run --silent lint

types: setup ## mypy, strict
	@mypy

bench: setup ## the benchmarks: a table, and JSON under build/
	@python -m tests.bench $(ARGS)

chaos: setup ## the fault tests: a table, and JSON under build/
	@python -m tests.chaos $(ARGS)

dashboard: setup ## build the dashboard

lock: ## resolve pyproject.toml into requirements.lock anew
	@uv pip compile -q --upgrade --universal --python-version 3.11 --extra dev --extra node --no-annotate --no-header \
	  pyproject.toml -o requirements.lock
	@sed -i -E '/^(nvidia-|cuda-|triton)/d' requirements.lock  # torch pins its own, where its build needs them

clean: ## remove what was built and what the platform wrote (not the environment)
	@if [ -x .venv/bin/raytape ]; then raytape down; fi
	@rm -rf build var dashboard/out dashboard/.next .pytest_cache .mypy_cache .ruff_cache .hypothesis
