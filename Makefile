# Every target works from a fresh clone: `setup` installs what misses.
.DEFAULT_GOAL := help
BASE ?= openvla pi0
PIXELVLA := .venv/bin/pixelvla
export MUJOCO_GL ?= egl

help: ## List what make offers
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: ## Install uv, the GL libraries and the locked environment
	@scripts/setup.sh

demo: setup ## Record, annotate, tune in two stages, evaluate and report, for both bases (25 minutes on 2 cores; BASE=openvla: 15)
	$(PIXELVLA) demo --out out/demo $(addprefix --base ,$(BASE))

test: setup ## Run every test (at most 10 minutes on 2 cores)
	.venv/bin/pytest -n 2

lint: setup ## Check style and types
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

docs: setup ## Check the documentation against the code
	.venv/bin/pytest tests/test_docs.py

bench: setup ## Measure the figures of docs/benchmarks.md
	.venv/bin/python -m bench.run

mini: setup ## Train openvla-mini again from recorded demonstrations (takes hours on 2 cores)
	scripts/make_mini.sh

.PHONY: help setup demo test lint docs bench mini
