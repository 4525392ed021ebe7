# hilum: two commands, `make run` and `make test`; `make` alone lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test lint bench lock clean apt
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
# Hashed and complete: pip looks nothing up and resolves nothing. Byte code is made when first imported.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# What the tests need of Debian: test peers and a browser.
APT := dcmtk orthanc dicom3tools postgresql chromium openssl fonts-dejavu-core

# A FHIR server and an OpenID provider that nobody here wrote, for the tests.
PEERS := tests/fhir_server/node_modules tests/oidc_provider/node_modules

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile

run: $(VENV)/.run ## start hilum with a built-in PACS and a few phantom studies (Ctrl-C ends it)
	@exec $(BIN)/hilum demo

test: $(VENV)/.dev apt $(PEERS) ## everything the tests need, then linters, types, walls and all tests
	@failed=; \
	$(MAKE) lint || failed="linters"; \
	$(BIN)/python -m pytest || failed="$$failed tests"; \
	if [ -n "$$failed" ]; then echo "make test: failed: $$failed" >&2; exit 1; fi

lint: $(VENV)/.dev ## ruff, mypy and the walls of the house (import-linter)
	@failed=; \
	$(BIN)/ruff check . || failed=1; \
	$(BIN)/ruff format --check . || failed=1; \
	$(BIN)/mypy || failed=1; \
	$(BIN)/lint-imports || failed=1; \
	test -z "$$failed"

bench: $(VENV)/.dev apt ## measure speed and memory, printed as a table
	@exec $(BIN)/python -m tests.benchmarks

lock: ## write requirements*.lock anew from pyproject.toml
	@$(FIND_PYTHON); \
	"$$python" -m venv build/lock; \
	build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv; \
	compile="build/lock/bin/uv pip compile pyproject.toml --quiet --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --extra cpu --extra train"; \
	$$compile --output-file requirements.lock; \
	$$compile --extra dev --constraints requirements.lock --output-file requirements-dev.lock

clean: ## remove the environment, caches and build output (never var/, where films may be)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find schemas worker training tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A working Python 3.11 or 3.12, in $$python; `make PYTHON=/path/to/python3.11 …` overrides the search.
define FIND_PYTHON
python=; \
for candidate in $(or $(PYTHON),python3.11 python3 python3.12); do \
	if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null; \
	then python="$$candidate"; break; fi; \
done; \
if [ -z "$$python" ]; then \
	echo 'hilum needs Python 3.11 or 3.12: install python3.11, or name one with `make PYTHON=/path/to/python …`' >&2; \
	exit 1; \
fi
endef

# `as_root COMMAND…`: as root, through sudo, or not at all with the words that a person needs.
define AS_ROOT
as_root() { \
	if ! command -v apt-get >/dev/null; then \
		echo "this is no Debian: please install what Debian calls: $$wanted" >&2; exit 1; \
	elif [ "$$(id -u)" = 0 ]; then "$$@"; \
	elif command -v sudo >/dev/null; then sudo "$$@"; \
	else echo "as root, please: apt-get install $$wanted" >&2; exit 1; fi; \
}; \
apt_install() { \
	echo "installing from Debian: $$wanted"; \
	as_root apt-get update -qq; \
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $$wanted >/dev/null; \
}
endef

apt:
	@wanted=; \
	for package in $(APT); do \
		dpkg-query --show --showformat='$${Status}' "$$package" 2>/dev/null | grep -q 'ok installed' \
			|| wanted="$$wanted $$package"; \
	done; \
	if [ -n "$$wanted" ]; then $(AS_ROOT); apt_install; fi

$(BIN)/python:
	@$(FIND_PYTHON); \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
		wanted=python3-venv; $(AS_ROOT); apt_install; \
	fi; \
	rm -rf $(VENV); \
	"$$python" -m venv $(VENV)

# Node.js comes with requirements-dev.lock; `npm ci` installs what the lock file names, by its hashes.
$(PEERS): %/node_modules: %/package-lock.json | $(VENV)/.dev
	@echo "installing a server of the tests into $@"
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --prefix $* --no-audit --no-fund --silent
	@touch $@

# Stamps: an environment is touched again only when its lock has changed.
$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/python
	@echo "installing what requirements.lock names into $(VENV) (a few minutes the first time)"
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	@echo "installing what requirements-dev.lock names into $(VENV) (a few minutes the first time)"
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $(VENV)/.run $@
