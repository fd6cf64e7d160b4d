# rebalancerd: `make demo` and `make test` install what is missing (system packages as root or with sudo, uv, the virtual
# environment) and say what they install.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Debian's own where it is there: its headers and packages are what we build with, and it is a fifth faster than a plain build
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
BIN := .venv/bin
UV := .uv/bin/uv
export UV_PYTHON_DOWNLOADS := never
export UV_LINK_MODE := copy
export PYTHONDONTWRITEBYTECODE := 1

# what Python needs to build libvirt's binding; what the lab runs on
BUILD_PACKAGES := python3 python3-venv python3-dev gcc libc6-dev pkg-config libvirt-dev
LAB_PACKAGES := libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils \
	iproute2 lxcfs kmod procps util-linux
TEST_PACKAGES := systemd openipmi openssl postgresql libfaketime iptables polkitd dbus-daemon dbus-bin

IS_ROOT := $(shell [ "$$(id -u)" = 0 ] && echo yes)
SUDO := $(if $(IS_ROOT),,$(shell command -v sudo || true))
AS_ROOT := $(if $(IS_ROOT),,$(if $(SUDO),$(SUDO) --preserve-env=PYTHONDONTWRITEBYTECODE,DEMO_MINUTES))

define install_packages
missing=""; \
for package in $(1); do \
	dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
done; \
if [ -n "$$missing" ]; then \
	if [ -z "$(IS_ROOT)$(SUDO)" ]; then \
		echo "rebalancerd: missing Debian packages, and neither root nor sudo to install them:$$missing" >&2; $(2); \
	else \
		echo "rebalancerd: installing Debian packages:$$missing"; \
		$(SUDO) apt-get update -qq; \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi; \
fi
endef

.PHONY: help setup packages lab-packages test-packages demo test faults faults-nightly lab night fuzz audit test-systemd check lint bench model demand-model lock wheel clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

packages:
	@$(call install_packages,$(BUILD_PACKAGES),exit 1)

lab-packages: packages
	@$(call install_packages,$(LAB_PACKAGES),true)

test-packages: lab-packages
	@$(call install_packages,$(TEST_PACKAGES),true)

setup: packages $(BIN)/.complete ## make .venv with everything pinned by hash in requirements.lock

$(UV):
	@echo "rebalancerd: installing uv into .uv"
	@$(PYTHON) -m venv .uv
	@.uv/bin/python -m pip install --quiet --disable-pip-version-check uv

$(BIN)/.complete: requirements.lock pyproject.toml | packages $(UV)
	@echo "rebalancerd: installing Python packages of requirements.lock into .venv"
	@[ -x $(BIN)/python ] || $(UV) venv --quiet --python $(PYTHON) .venv
	@$(UV) pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup lab-packages ## bring up three real hosts, make one hot, watch it being relieved (DEMO_MINUTES, default 4)
	@$(AS_ROOT) $(BIN)/rebalancerd demo

# two at a time; those on real hosts alone
ALONE := tests/lab
TEST := $(BIN)/python -m pytest -p no:cacheprovider
# theirs is many small ledgers, written through: in memory where that is large enough
IN_MEMORY := $(shell [ "$$(df --output=avail /dev/shm 2>/dev/null | tail -1)" -ge 2000000 ] 2>/dev/null && [ -w /dev/shm ] && echo yes)

test: setup test-packages ## all tests but the long ones of the lab (`make faults` runs those); the lab needs root or sudo
	@$(BIN)/python -m compileall -q rebalancerd tests
	@failed=0; memory=""; \
	$(if $(IN_MEMORY),memory=$$(mktemp -d /dev/shm/rebalancerd-XXXXXX); chmod 1777 $$memory;) \
	$(AS_ROOT) env OMP_NUM_THREADS=1 $${memory:+TMPDIR=$$memory} $(TEST) -n 2 --dist worksteal $(addprefix --ignore=,$(ALONE)) $(PYTEST_ARGS) || failed=1; \
	$(AS_ROOT) env OMP_NUM_THREADS=1 $(TEST) $(ALONE) $(PYTEST_ARGS) || failed=1; \
	$(AS_ROOT) rm -rf $$memory; \
	exit $$failed

faults: setup test-packages ## the table of faults, one line a row, and docs/faults.md; the lab's part when root or sudo is there
	@$(AS_ROOT) $(BIN)/python -m tests.faults $(ARGS)

faults-nightly: setup ## random walks, a million steps (hours)
	@$(BIN)/python -m tests.bench walk --steps 1000000 $(ARGS)

fuzz: packages $(UV) ## atheris on every reader, FUZZ_SECONDS (default 600) each: make fuzz ARGS="xml plan"
	@[ -x .venv-fuzz/bin/python ] || $(UV) venv --quiet --python $(PYTHON) .venv-fuzz
	@cat requirements.lock requirements-fuzz.lock >.venv-fuzz/both.lock
	@$(UV) pip sync --quiet --python .venv-fuzz/bin/python --require-hashes .venv-fuzz/both.lock
	@$(UV) pip install --quiet --python .venv-fuzz/bin/python --no-deps --no-build-isolation --editable .
	@.venv-fuzz/bin/python -m tests.fuzz --seconds $${FUZZ_SECONDS:-600} $(ARGS)

audit: $(UV) ## look every pinned package up among the known vulnerabilities; 1: some are, 2: could not be looked up
	@[ -x .venv-audit/bin/python ] || $(UV) venv --quiet --python $(PYTHON) .venv-audit
	@$(UV) pip sync --quiet --python .venv-audit/bin/python --require-hashes requirements-audit.lock
	@.venv-audit/bin/python tests/security/audit.py .venv-audit/bin/pip-audit

IMAGE_PACKAGES := debootstrap qemu-system-x86 e2fsprogs

test-systemd: setup ## a Debian image booted under QEMU in which systemd runs the hardened units (root; about a quarter of an hour)
	@$(call install_packages,$(IMAGE_PACKAGES),exit 1)
	@$(AS_ROOT) $(BIN)/python -m tests.image $(ARGS)

lab: setup test-packages ## every test on real hosts, the long ones and all faults included (an hour)
	@$(AS_ROOT) env REBALANCERD_LAB=full OMP_NUM_THREADS=1 $(BIN)/python -m pytest -p no:cacheprovider tests/lab $(PYTEST_ARGS)

night: setup test-packages ## a night in minutes: three real hosts fold to one, two sleep, wake by forecast, unfold
	@$(AS_ROOT) env REBALANCERD_LAB=full $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/lab/test_night_lab.py

lint: setup ## format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

check: lint test ## what must be green in every commit

bench: setup ## a benchmark: make bench NAME=cycle ARGS="--hosts 200 --vms 4000 --json cycle.json"
	@$(AS_ROOT) $(BIN)/python -m tests.bench $(NAME) $(ARGS)

model: setup ## train the shipped cost model on models/data/cost-train.csv
	@$(BIN)/python -m rebalancerd.predict.publish

demand-model: setup ## train the shipped demand model on public traces: make demand-model TRACES=DIR
	@$(BIN)/python -m rebalancerd.cli.publish_demand --traces $(TRACES)

lock: $(UV) ## pin all dependencies with hashes
	@$(UV) pip compile $(LOCKED) --extra dev --extra postgres --extra power --output-file requirements.lock pyproject.toml
	@$(UV) pip compile $(LOCKED) --output-file requirements-fuzz.lock - <<<'atheris>=3.0'
	@$(UV) pip compile $(LOCKED) --output-file requirements-audit.lock - <<<'pip-audit>=2.10'

LOCKED := --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header --python-version 3.11

wheel: setup ## build the wheel into dist/
	@$(UV) build --quiet --python $(BIN)/python --no-build-isolation --wheel --out-dir dist .

clean: ## remove what make made
	@rm -rf .venv .venv-fuzz .venv-audit .fuzz .image .uv dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
