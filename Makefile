# Two commands do everything on a fresh machine: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
STAMP := $(VENV)/.installed
export NO_ALBUMENTATIONS_UPDATE = 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check browser format clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with the pinned versions (about 6 GB, once)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13))' || \
	  { echo "Python 3.11 to 3.13 is needed; name one with make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[dev]' -c constraints.txt
	# W&B's definition of sweep files. It asks for numpy below 2, but what is used of it runs with 2.
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -c constraints.txt sweeps
	@touch $@

demo: $(STAMP) ## Train the paper's network on generated cells: three seeds, one table
	$(BIN)/python -m cnmc.train experiment=demo 'seed=range(3)'

test: $(STAMP) lint browser ## Run lint, types and all tests
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: $(STAMP) ## Format, lint, types and the fast tests
	$(BIN)/ruff format .
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m 'not slow'

# The report's page is tested in a browser. One is fetched where there is none; where that cannot be
# done either, those tests are skipped and say so.
FIND_BROWSER := $(BIN)/python -m tests.reporting.browser
FETCH := timeout --kill-after=10
browser: $(STAMP)
	@$(FIND_BROWSER) && exit 0; \
	  echo "No browser for the tests of the report's page; fetching Chromium"; \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get && \
	    DEBIAN_FRONTEND=noninteractive $(FETCH) 300 sh -c \
	      'apt-get update && apt-get install -y --no-install-recommends chromium' && \
	    $(FIND_BROWSER); } </dev/null >/dev/null 2>&1 || \
	  { $(FETCH) 300 $(BIN)/playwright install chromium && $(FIND_BROWSER); } \
	    </dev/null >/dev/null 2>&1 || \
	  echo "No browser could be fetched: the tests of the report's page will be skipped"

.PHONY: lint
lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean: ## Remove .venv and what tools left (data/, runs/ and report/ stay)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
