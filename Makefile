# Every target makes the environment it needs; once that is made, it is not made again until its requirements change.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := components pipelines serve tune_spaces tests benchmarks
REQUIREMENTS := pyproject.toml constraints.txt
STAMP := $(VENV)/.made-$(shell cat $(REQUIREMENTS) | cksum | cut -d ' ' -f 1)

# One thread per process and no spinning: several processes share the cores, and spinning threads slow each other down.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help env demo test readme test-all check secrets audit format openapi bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

env: $(STAMP) ## make the environment .venv

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "distilrec needs Python 3.11 or newer; say which: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --no-compile -q -c constraints.txt -e '.[dev,onnx,faiss,redis,browser]'
	@rm -f $(VENV)/.made-*
	@touch $@

demo: env ## a synthetic world through the whole pipeline, in minutes
	$(BIN)/distilrec demo

test: env ## the tests, without the slow ones
	$(BIN)/pytest

readme: demo ## the README's commands, on what the demo left
	$(BIN)/pytest -m demo tests/system/test_readme_runs.py

test-all: env ## all tests, the slow ones, those that kill processes and those in a browser, too
	$(BIN)/pytest -m ''

check: env secrets ## lint (security, too), format, types, layers, secrets
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

# The words are what our examples of passwords say.
secrets: env ## look for keys, tokens and passwords in what git holds
	@[ ! -d .git ] || git ls-files -z -- ':!docs/pictures' ':!docs/openapi.json' ':!constraints.txt' | xargs -0 $(BIN)/detect-secrets-hook \
		--exclude-secrets '^(secret|password|word|hush|se)$$' --exclude-lines 'secretName'

audit: env ## known security holes in the pinned packages; needs the internet
	@$(BIN)/python -c 'import httpx; httpx.get("https://api.osv.dev/", timeout=10)' 2> /dev/null \
		|| { echo "make audit asks api.osv.dev, which cannot be reached from here; nothing was checked"; exit 2; }
	$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt pip-audit
	$(BIN)/pip-audit --disable-pip --no-deps --vulnerability-service osv -r constraints.txt

format: env ## format and fix what can be fixed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

openapi: env ## write docs/openapi.json anew, after a change of the endpoint's routes
	$(BIN)/python -m serve.openapi > docs/openapi.json

bench: env ## quick looks at speed; each script's --help tells how to measure fully and against peers
	$(BIN)/python -m benchmarks.prepare --rows 2000000
	$(BIN)/python -m benchmarks.distillation_cost
	$(BIN)/python -m benchmarks.two_workers

clean: ## remove caches and build leftovers; keeps .venv and runs
	rm -rf build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
