# The front door. Everything runs inside .venv, which the first target that needs it creates.
PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-fast test-slow test-postgresql check lint types bench attachments faults soak fuzz vectors lock clean

.venv/run: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.venv/dev: .venv/run requirements-dev.lock
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	touch $@

# A scanner of TLS servers that tests run; it wants an older `cryptography` than the program.
.venv/scan: requirements-scanner.lock
	test -x .venv/scanner/bin/python || $(PYTHON) -m venv .venv/scanner
	.venv/scanner/bin/python -m pip install --quiet --require-hashes -r requirements-scanner.lock
	touch $@

# Peers that `make bench` measures beside the exchange; one is under the GPL, and no part of what we distribute.
.venv/compare: requirements-bench.lock
	test -x .venv/comparison/bin/python || $(PYTHON) -m venv .venv/comparison
	.venv/comparison/bin/python -m pip install --quiet --require-hashes -r requirements-bench.lock
	touch $@

demo: .venv/run
	$(BIN)/exchange demo

test: test-fast test-slow

test-fast: .venv/dev
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: .venv/dev .venv/scan .venv/compare
	$(BIN)/python -m pytest -n 2 -m slow

# Everything that keeps a store, again on a PostgreSQL server that the tests start; or some of it: STORED=FILES.
STORED ?= tests/node tests/processes
test-postgresql: .venv/dev
	$(BIN)/python -m pytest -n 2 -m "not slow" --store postgresql $(STORED)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/dev
	$(BIN)/mypy

check: lint types test

# What handovers cost on this machine: a few minutes; BENCH=--full takes about an hour.
bench: .venv/dev .venv/compare
	$(BIN)/python -m benchmarks $(BENCH)

# A file of a gibibyte between two nodes, over a line that is cut twenty times; prints how much memory they take.
attachments: .venv/dev
	ATTACHMENT_MIB=1024 $(BIN)/python -m pytest -s tests/processes/test_attachments.py -k twenty

# Break what can break under real nodes, and check what they leave behind. As root: it mounts, and makes namespaces.
# FAULTS="crash/* disk/*" runs some.
FAULTS ?= *
faults: .venv/dev
	set -f; $(BIN)/python -m tests.faults --only $(FAULTS)
	$(BIN)/python -m tests.faults --store postgresql --only 'database/*'

# make soak HOURS=8: the same at random, until the time is up.
HOURS ?= 1
soak: .venv/dev
	$(BIN)/python -m tests.faults --soak $(HOURS)

# Each parser for its share of MINUTES, from the corpus in tests/fuzz/corpus; what breaks a rule is kept in fuzz-found/.
MINUTES ?= 10
fuzz: .venv/dev
	$(BIN)/python -m tests.fuzz.run --minutes $(MINUTES)

vectors: .venv/dev
	$(BIN)/python tests/vectors/generate.py

# Needs uv (pip install uv). Resolves anew; commit what changes.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra postgresql pyproject.toml build-requirements.in -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra postgresql --group dev pyproject.toml build-requirements.in -c requirements.lock -o requirements-dev.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header scanner-requirements.in -o requirements-scanner.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header bench-requirements.in -o requirements-bench.lock

clean:
	rm -rf .venv build dist fuzz-found .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
