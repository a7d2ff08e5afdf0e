# Each target is what a person could type. `make demo` and `make test` build .venv on first use.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: demo test lint pytest bench clean

.venv/installed: setup.cfg constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip setuptools wheel
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

demo: .venv/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" bash experiments/demo.sh

# mypy reads all of torch on one core, for more than a minute; the tests begin meanwhile.
test: .venv/installed
	$(MAKE) --no-print-directory --jobs 2 lint pytest

pytest: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed
	$(BIN)/cmarr benchmark

clean:
	rm -rf .venv .demo build dist
