# Short names for what a developer does all day. PYTHON may point into a virtual environment.
PYTHON ?= python

.PHONY: build check test test-all release-mini pictures

build:          ## compile the native extension in place (src/tusi/kernels/)
	scripts/build

check:          ## format, lint, types, import contracts
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	PATH="$(dir $(PYTHON)):$$PATH" lint-imports

test:           ## what must pass before a commit
	$(PYTHON) -m pytest -q -m "not slow and not network"

test-all:       ## everything that needs no network
	$(PYTHON) -m pytest -q -m "not network"

release-mini:   ## ship CHECKPOINT as tusi-mini: measure it, write its card, tables and pictures, commit
	$(PYTHON) recipes/tusi-mini/release.py $(CHECKPOINT)

pictures:       ## draw the README's pictures anew
	$(PYTHON) recipes/tusi-mini/examples.py
