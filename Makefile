# Everything works in a fresh clone: each target first updates .venv.
# Needs Python >= 3.10 with the venv module, and make. Nothing else is taken from the system.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
# The first interpreter on the path that is new enough; choose another with `make PYTHON=...`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo "$$p"; break; }; done)

# No target downloads from a model hub.
export HF_HUB_OFFLINE := 1

.PHONY: help setup hello quickstart test test-all checks golden bench bench-gpu clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv and install the package with its development tools

# Written last, so that an interrupted installation is repeated.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
		found="$(or $(PYTHON),python3)"; \
		echo "video_llama needs Python 3.10 or newer; $$found is: $$($$found --version 2>&1)." >&2; \
		echo "Install one, or name it: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@rm -f $(STAMP)
	$(PY) -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	$(PY) -m pip install --disable-pip-version-check 'pip>=22.3' # the first that supports all of pyproject.toml
	$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

hello: setup ## ask the shipped toy model about a shipped clip
	@$(PY) -m video_llama.toy.hello

quickstart: setup ## make the toy world, train all stages on it, report what they learned
	$(PY) -m video_llama.toy.quickstart

test: setup ## run the tests, except those that kill and stop processes of a run
	$(PY) -m pytest -m "not faults"

test-all: setup ## run all tests
	$(PY) -m pytest

checks: setup ## lint, formatting, types, direction of imports
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

golden: setup ## compare the first 20 losses of each toy stage with the recorded ones
	$(PY) -m tests.golden

# Those that keep what they find, and those that print it.
KEPT    := train_step loss_head saved_activations
PRINTED := decode infer first_answer loader padding

bench: setup ## run the benchmarks, and write docs/performance.md from what they find
	@set -e; for name in $(KEPT) $(PRINTED); do echo "benchmarks.$$name"; $(PY) -m benchmarks.$$name; done
	$(PY) -m benchmarks.report

bench-gpu: setup ## the same on a GPU, at full size: under ten minutes
	$(PY) -m benchmarks.gpu
	$(PY) -m benchmarks.report

clean: ## remove caches, runs and build output; .venv stays
	rm -rf runs output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +
