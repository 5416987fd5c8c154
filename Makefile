# `make demo` shows what shoal does; `make test` sets up and runs every check.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help demo test test-long check proto bench clean

help:
	@echo "make demo   four real nodes on this machine: three share a file, one finds and fetches it"
	@echo "make test   set up .venv, then run ruff, mypy and all tests"
	@echo "make test-long  run what takes minutes, such as 200 kills of a fetching process"
	@echo "make bench  move 1 GiB with shoal, libtorrent and nginx + curl in turn, and compare"
	@echo "make proto  generate the protobuf modules again from wire/proto/*.proto"
	@echo "make clean  remove .venv and caches"

# One virtual environment for everything. The editable install lets an edited file count at once.
.venv/.run: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "shoal needs Python 3.11 or newer: install it, or name it: make PYTHON=python3.12 demo" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "Python's venv module is missing: install it with: sudo apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing shoal into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.dev: .venv/.run
	@echo "installing the development tools into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,dask,quic,simulate,upnp]'
	@# trio-typing (of multiaddr) brings stubs of an old trio that hide trio's own types from mypy.
	@$(BIN)/python -m pip uninstall --quiet --yes trio-typing
	@touch $@

# Not fatal: libtorrent has no package for every Python, and the rest is worth measuring, too.
.venv/.bench: .venv/.run
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]' \
	  || echo "libtorrent could not be installed: it is left out" >&2
	@# As above: what it brings would mislead mypy.
	@$(BIN)/python -m pip uninstall --quiet --yes trio-typing
	@touch $@

demo: .venv/.run
	@$(BIN)/python benchmarks/demo.py

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests benchmarks

test: check
	$(BIN)/pytest

test-long: .venv/.dev
	$(BIN)/pytest -m long

proto: .venv/.dev
	$(BIN)/python -m shoal.wire.proto

bench: .venv/.bench
	@$(BIN)/python benchmarks/peers

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis tests/interop/node_modules
