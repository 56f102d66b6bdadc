# `make help` lists what there is. Everything is built into ./.venv and ./build*; nothing else of the machine is touched,
# but for missing Debian packages, which are installed when make runs as root (scripts/system-packages).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# The commands that are run find meson and ninja, and no settings of a caller's own Python get in.
export PATH := $(CURDIR)/$(BIN):$(PATH)
unexport PYTHONPATH PYTHONHOME

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
INSTALL := $(PIP) --no-build-isolation --config-settings=build-dir=build --config-settings=setup-args=-Dnative_tests=true
SOURCES := $(shell find sharedstack helper tests/native scripts/sources.py -type f \( -name '*.py' -o -name 'py.typed' -o -name '*.[chS]' \) | LC_ALL=C sort)
M32 := build/sharedstack/native/m32/libsharedstack.so
# Helpers that lend an interface are not killed as a rule: docs/chaos.md says what does not hold then.
CHAOS :=
# One make at a time builds; it may wait for another one here.
LOCKED := flock $(VENV)/.lock

.PHONY: help build demo test lint format sanitize fuzz m32 abi bench cost wire conformance soak suites processes matrix models killpoints chaos clean system-build system-demo system-test system-suites system-processes system-wire system-fuzz FORCE

help: ## this list
	@sed -n 's/^\([a-z0-9]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18

build: $(VENV)/.built ## the package, installed into ./.venv

demo: system-demo $(VENV)/.built ## redis on the kernel and through sharedstack, side by side
	@cd / && $(CURDIR)/$(BIN)/python -m sharedstack.demo

test: system-test $(VENV)/.test $(VENV)/.built ## all tests
	@# built before there was a clang, or one for 32 bits? then the steering program or that library is missing
	@[ -e build/steer.bpf.o -a -e $(M32) ] || { rm $(VENV)/.built && $(MAKE) --no-print-directory build; }
	@$(LOCKED) $(BIN)/meson test -C build --suite native --print-errorlogs
	@$(BIN)/pytest

lint: system-test $(VENV)/.dev $(VENV)/.built ## ruff, strict types, clang-format, warnings of gcc and clang
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find sharedstack/native tests -name '*.[ch]' -exec $(BIN)/clang-format --dry-run -Werror {} +
	@scripts/meson-build build-gcc gcc -Dnative_tests=true -Dm32=false -- all native-tests
	@scripts/meson-build build-clang clang -Dnative_tests=true -Dm32=false -- all native-tests

format: $(VENV)/.dev ## put Python and C into shape
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .
	find sharedstack/native tests -name '*.[ch]' -exec $(BIN)/clang-format -i {} +

sanitize: system-build $(VENV)/.tools ## C tests under ASan and UBSan, the threaded ones under TSan
	@scripts/meson-build build-asan gcc -Dnative_tests=true -Db_sanitize=address,undefined -Dwerror=false -- native-tests
	@UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 scripts/no-aslr $(BIN)/meson test -C build-asan --no-rebuild --suite native --print-errorlogs
	@scripts/meson-build build-tsan gcc -Dnative_tests=true -Db_sanitize=thread -Dwerror=false -- native-tests
	@TSAN_OPTIONS=halt_on_error=1 scripts/no-aslr $(BIN)/meson test -C build-tsan --no-rebuild --suite threads --print-errorlogs

fuzz: system-fuzz $(VENV)/.built ## hostile packets and options by libFuzzer, FUZZ_SECONDS (600) each
	@scripts/fuzz $(or $(FUZZ_SECONDS),600)

m32: system-test $(VENV)/.tools ## library and layout for 32 bits: same offsets, same hash
	@scripts/meson-build build-m32 gcc '-Dc_args=-m32 -march=i686 -msse2' -Dc_link_args=-m32 -- libraries
	@scripts/layout-check build-m32 -m64 -m32

abi: $(VENV)/.built ## no symbol version of glibc newer than 2.28; nothing exported but what is declared
	@$(BIN)/python scripts/abi.py build/libsharedstack.so build/libshs_native.so $(wildcard $(M32))

soak: system-test $(VENV)/.test $(VENV)/.built ## 200,000 random steps and 3,000 cases of the matrix, compared with the kernel; ten minutes of chaos; all tests of which make test plays a share
	@cd tests && ../$(BIN)/python -m differential.soak --steps 200000
	@cd tests && ../$(BIN)/python -m matrix.main --all --cases 3000
	@cd tests && ../$(BIN)/python -m chaos.main --seconds 600
	@COMPAT_ALL=1 RECALL_ALL=1 $(BIN)/pytest -q tests/compat/test_recall.py tests/compat/test_follow.py tests/compat/test_acceptors.py
	@KILL_ALL=1 COMPAT_ALL=1 SIGNALS=10000000 $(BIN)/pytest -q -s tests/kill
	@WIRE_ALL=1 LIFTS=1000 CONVERSATION_SECONDS=300 $(BIN)/pytest -q -s tests/wire

wire: system-test system-wire $(VENV)/.test $(VENV)/.built ## the wire path beside the kernel, on two hosts joined by a cable (root)
	@cd tests && ../$(BIN)/python -m wire.table $(WIRE)
	@cd tests && ../$(BIN)/python -m wire.many $(MANY)

bench: $(VENV)/.built ## the project's own comparison with the kernel
	@$(BIN)/sharedstack bench

conformance: system-test $(VENV)/.test $(VENV)/.built ## what sockets do, on the kernel and through sharedstack, side by side
	@PYTHONPATH=tests $(BIN)/python -m compat.sockets.table

suites: system-test system-suites $(VENV)/.test $(VENV)/.built ## the tests of CPython and libuv, on the kernel and through sharedstack, compared
	@PYTHONPATH=tests $(BIN)/python -m suites.main --again 3 --folder build-suites $(SUITES)

processes: system-processes $(VENV)/.test $(VENV)/.built ## real software in several processes under load, on the kernel and through sharedstack, compared (root)
	@cd tests && ../$(BIN)/python -m compat.processes.main $(PROCESSES)

cost: $(VENV)/.test $(VENV)/.built ## what it costs to fork with, pass on, inherit and lower lifted connections, beside the kernel
	@cd tests && ../$(BIN)/python -m compat.cost $(COST)

chaos: system-test $(VENV)/.test $(VENV)/.built ## a hundred processes that talk, fork, exec and pass sockets on, killed and stopped, and the helper every second (root)
	@cd tests && ../$(BIN)/python -m chaos.main $(CHAOS)
	@cd tests && ../$(BIN)/python -m chaos.repair $(REPAIR)

matrix: system-test $(VENV)/.test $(VENV)/.built ## every way in which a socket comes to another process, times its state, the next step and the path (root)
	@cd tests && ../$(BIN)/python -m matrix.main $(MATRIX)

killpoints: system-test $(VENV)/.test $(VENV)/.built ## participants, the helper and an engine's driver killed behind each instruction that changed shared memory (root)
	@cd tests && ../$(BIN)/python -m kill.main $(KILLPOINTS)
	@build/test-test_kill_points $$(($$(date +%s) / 86400)) 200
	@cd tests && ../$(BIN)/python -m kill.mutants.main

models: system-test $(VENV)/.built ## the Promela models of the protocol, and mutants of them that must fail
	@$(BIN)/python tests/models/run.py

clean: ## remove all that was built
	rm -rf $(VENV) build build-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

system-fuzz:
	@scripts/system-packages fuzz!
system-wire:
	@scripts/system-packages wire!
system-suites:
	@scripts/system-packages suites!
system-processes:
	@scripts/system-packages build! processes!
system-build:
	@scripts/system-packages build!
system-demo:
	@scripts/system-packages build! demo
system-test:
	@scripts/system-packages build! demo test processes

# The environment, and what a build without isolation needs.
$(VENV)/.tools: pyproject.toml scripts/find-python | system-build
	@[ -x $(BIN)/python ] || "$$(scripts/find-python)" -m venv $(VENV)
	@$(LOCKED) $(PIP) 'meson>=1.1' 'meson-python>=0.15' 'ninja>=1.11'
	@touch $@

# Changes when a source comes or goes, which no time stamp tells.
$(VENV)/.sources: FORCE | $(VENV)/.tools
	@printf '%s\n' $(SOURCES) | cmp -s - $@ || printf '%s\n' $(SOURCES) >$@

# The first time with its dependencies, then without asking for them.
$(VENV)/.built: $(VENV)/.tools $(VENV)/.sources $(SOURCES) meson.build sharedstack/native/m32/meson.build meson_options.txt README.md
	@echo "Building into $(VENV)"
	@if [ $@ -nt pyproject.toml ]; then deps=--no-deps; else deps=; fi; $(LOCKED) $(INSTALL) $$deps .
	@[ -e $(M32) ] || echo "Without a library for 32-bit programs (sharedstack doctor says what is missing)"
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/.built
	@$(LOCKED) $(INSTALL) '.[test]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.built
	@$(LOCKED) $(INSTALL) '.[test,dev]'
	@touch $@

FORCE:
