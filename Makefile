# Two commands for everybody: make run, make test. They set up all they need.

PYTHON ?= python3
# Another interpreter has an environment of its own: make test PYTHON=python3.13
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(VERSION))
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The tests start hundreds of processes: each would compile every module afresh.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test quick lint mutants bench soak planted badinput limits reliability lock sbom audit mutation clean

run: $(READY)
	$(BIN)/puffle-accounts demo

# Coverage is of all tests, so it is not measured where some are asked for. Line by line: coverage report.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses 5 --dist worksteal $(or $(ARGS),--cov --cov-report=)

# Each process takes two or three seconds of a processor to begin. Measured on two slow ones, with three, four,
# five and six of them: 25, 23, 21 and 22 s.
quick: $(READY)
	$(BIN)/python -m pytest --numprocesses 5 --dist worksteal --quick $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd examples/puffle-smartlead && ../../$(BIN)/mypy --strict .  # as an author, on an editable install

# Break each plugin in many ways: the kit and its tests catch them all.
mutants: $(READY)
	$(BIN)/python tests/plugins/mutants.py $(ARGS)

# Change one thing in the service's own modules, and again: do its tests notice?
mutation: $(READY)
	$(BIN)/python -m pip install --quiet -r soak/requirements.txt
	PYTHONPATH=tests $(BIN)/python -m soak.mutation $(ARGS)

bench: $(READY)
	$(BIN)/python -m pip install --quiet -r bench/requirements.txt
	$(BIN)/python -m bench.run $(ARGS)

soak: $(READY)
	PYTHONPATH=tests $(BIN)/python -m soak.run $(ARGS)

planted: $(READY)
	PYTHONPATH=tests $(BIN)/python -m soak.planted $(ARGS)

badinput: $(READY)
	PYTHONPATH=tests $(BIN)/python -m soak.bad_input $(ARGS)

limits: $(READY)
	PYTHONPATH=tests $(BIN)/python -m soak.limits $(ARGS)

reliability: $(READY)
	PYTHONPATH=tests $(BIN)/python -m soak.page

# What the image is made of. In an environment of its own: these tools bring much along.
TOOLS := .venv-tools/bin
EXTRAS := postgres,gevent
ALSO :=
LOCK := deploy/requirements.lock

$(TOOLS)/.ready:
	$(PYTHON) -m venv .venv-tools
	$(TOOLS)/python -m pip install --quiet cyclonedx-bom pip-audit uv
	touch $@

# One for every Python and machine that the package runs on. UPGRADE= keeps what is locked where it can be.
comma := ,
UPGRADE := --upgrade
lock: $(TOOLS)/.ready
	printf '%s\n' $(ALSO) | $(TOOLS)/uv pip compile pyproject.toml - $(foreach extra,$(subst $(comma), ,$(EXTRAS)),--extra $(extra)) \
	    --universal --python-version 3.10 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	    $(UPGRADE) --quiet --output-file $(LOCK)

# As the image is made; so it also shows that the lock can be installed.
sbom: $(TOOLS)/.ready
	rm -rf build/image && $(PYTHON) -m venv build/image
	build/image/bin/pip install --quiet --require-hashes --only-binary :all: --requirement $(LOCK)
	build/image/bin/pip install --quiet --no-deps .
	build/image/bin/pip uninstall --quiet --yes pip setuptools
	$(TOOLS)/cyclonedx-py environment --output-reproducible --output-file build/sbom.json build/image/bin/python

audit: $(TOOLS)/.ready
	$(TOOLS)/pip-audit --strict --require-hashes --disable-pip --requirement $(LOCK)

clean:
	rm -rf .venv .venv-* build *.egg-info plugins/*.egg-info

$(READY): setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --editable '.[test,postgres,gevent]'
	touch $@
