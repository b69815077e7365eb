# Two commands do everything on a machine with Python 3.11+ and a C compiler: `make demo` and `make test`.
#
#   PYTHON=python3.13   the interpreter to make the environment from
#   VENV=.venv-3.13     the environment; several can share one checkout
#   FLAVOUR=debug       how the core is compiled: release, debug, sanitize, trace; kept until another is named
#   ARGS='-k chain'     handed on to pytest or to the demo

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
PY := $(BIN)/python
FLAVOUR ?= $(or $(shell cat $(VENV)/.flavour 2>/dev/null),release)
CORE := $(wildcard cra/_core/*.pyx cra/_core/*.pxd cra/_core/leaf/*)
CORE_TESTS ?= tests/core
CC ?= cc
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# uv is ten times as fast as pip; pip does it where uv has no binary or cannot reach what pip is set up to reach.
define install
@if [ -x $(BIN)/uv ] && $(2) $(BIN)/uv pip install -q --python $(PY) $(1); then :; else $(2) $(PY) -m pip install -q $(1); fi
endef
define compile
CRA_FLAVOUR=$(FLAVOUR) $(PY) setup.py -q build_ext --inplace
@echo $(FLAVOUR) >$(VENV)/.flavour
@touch $(VENV)/.core
endef

# Another flavour than the compiled one was asked for: compile again.
ifneq ($(FLAVOUR),$(shell cat $(VENV)/.flavour 2>/dev/null))
$(shell rm -f $(VENV)/.core)
endif

.PHONY: help install build demo test check lint types stubs schemas workflows docs bench core sanitize coverage wheel clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' Makefile

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"CRA needs Python 3.11 or newer, this is {v[0]}.{v[1]}: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV) || { echo "no virtual environment: on Debian and Ubuntu, install python3-venv" >&2; exit 1; }
	@$(PY) -m pip install -q --upgrade 'pip>=25.1'
	@$(PY) -m pip install -q --only-binary :all: uv || echo "no uv for this machine; going on with pip"
	@touch $@

# The package itself goes in without its core, which the next rule compiles in place.
$(VENV)/.deps: $(VENV)/.made pyproject.toml
	@$(PY) -c 'import shutil, sys; sys.exit(any(map(shutil.which, ("$(CC)", "cc", "gcc", "clang"))) < 1 and "CRA compiles its core: install a C compiler (gcc or clang)")'
	$(call install,--group build --group test)
	$(call install,--no-build-isolation -e '.[all]',CRA_ONLY=none)
	@touch $@

$(VENV)/.core: $(VENV)/.deps setup.py $(CORE)
	$(compile)

$(VENV)/.group-%: $(VENV)/.deps
	$(call install,--group $*)
	@touch $@

install: $(VENV)/.core ## create the environment and compile the core

build: $(VENV)/.deps ## compile the core again, all of it: make build FLAVOUR=debug
	rm -rf build/lib.*$(if $(filter release,$(FLAVOUR)),,-$(FLAVOUR)) build/cython-$(FLAVOUR)
	$(compile)

demo: install ## govern a real agent run and leave its trace on disk
	@$(BIN)/cra demo $(ARGS)

test: install ## run the tests
	@$(PY) -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

check: lint types stubs schemas workflows docs ## everything a reviewer should not have to look for

lint: install $(VENV)/.group-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	PATH="$(BIN):$$PATH" $(BIN)/cython-lint cra/_core

types: install $(VENV)/.group-check
	$(BIN)/mypy

stubs: install $(VENV)/.group-check
	$(BIN)/stubtest cra._core --ignore-disjoint-bases --mypy-config-file .ci/stubtest.ini --allowlist .ci/stubtest.txt

schemas: install
	$(PY) -m cra.protocol.schema --check

workflows: $(VENV)/.group-check
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	$(BIN)/zizmor --offline --quiet --persona pedantic .github
	$(PY) wheels/identifiers.py --check

docs: install
	@$(PY) -m pytest -q tests/test_docs.py

# The other engines have an environment of their own: what they drag in must not meet what the tests run with.
BENCH := $(VENV)-bench
define install_beside
$(BIN)/uv pip install -q --python $(BENCH)/bin/python $(1) 2>/dev/null || $(PY) -m pip --python $(BENCH)/bin/python install -q $(1)
endef

$(BENCH)/.made: $(VENV)/.made pyproject.toml
	@$(PY) -m venv --clear --without-pip $(BENCH) && echo '*' >$(BENCH)/.gitignore
	@$(call install_beside,--group bench)
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["peers"], sep="\n")' | \
	while read -r peer; do $(call install_beside,"$$peer") || echo "left out: $$peer"; done
	@touch $@

bench: install $(BENCH)/.made ## measure, beside the floors and the other engines: make bench ARGS=--quick
	@test "$(FLAVOUR)" = release || { echo "the core is compiled as $(FLAVOUR): make build FLAVOUR=release first" >&2; exit 1; }
	@$(BENCH)/bin/python -m bench $(ARGS)

core: sanitize coverage ## the core under sanitizers, and the line coverage of every .pyx

# Copies, because a binary built with other flags must never be mistaken for the one in the tree.
define copied
@mkdir -p build/$(1)
@find build/$(1) -mindepth 1 -maxdepth 1 ! -name build -exec rm -rf {} +
@tar -cf - --exclude=__pycache__ --exclude='*.so' cra specs tests setup.py pyproject.toml README.md LICENSE | tar -xf - -C build/$(1)
@cd build/$(1) && CRA_FLAVOUR=$(1) $(abspath $(PY)) setup.py -q build_ext --inplace
endef

sanitize: install
	$(call copied,sanitize)
	cd build/sanitize && rm -f report.* && CRA_FLAVOUR=sanitize \
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1:log_path=report LSAN_OPTIONS=suppressions=$(abspath tests/core/leaks.txt):print_suppressions=0 \
	UBSAN_OPTIONS=print_stacktrace=1:log_path=report \
	$(abspath $(PY)) -m pytest -q -p no:cacheprovider -p no:xdist $(CORE_TESTS) $(ARGS) || { cat report.* 2>/dev/null; exit 1; }
	@! cat build/sanitize/report.* 2>/dev/null | grep -A 30 -e 'ERROR: ' -e 'runtime error: '

coverage: install $(VENV)/.group-core
	@$(PY) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "line coverage of Cython is only right on CPython 3.11: make coverage PYTHON=python3.11 VENV=.venv-3.11")'
	$(call copied,trace)
	cd build/trace && CRA_FLAVOUR=trace $(abspath $(PY)) -m coverage run -m pytest -q -p no:cacheprovider -p no:xdist $(CORE_TESTS) $(ARGS)
	cd build/trace && $(abspath $(PY)) -m coverage report --include='cra/_core/*' && \
	$(abspath $(PY)) -m coverage json -q --include='cra/_core/*' -o coverage.json
	@$(PY) .ci/measured.py build/trace/coverage.json cra/_core

wheel: $(VENV)/.group-wheel ## sdist, wheel from the sdist, report, and a smoke test in a clean environment
	$(PY) wheels/make.py $(ARGS)

clean: ## remove everything that was built, environments too
	rm -rf build dist .venv .venv-* *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f cra/_core/*.so cra/_core/*.pyd
