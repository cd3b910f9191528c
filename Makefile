# make run       environment, all five distributions, tcm-run --fabric iscsi     (more options: ARGS="--portal 127.0.0.1:3261")
# make test      environment, ruff, mypy, all tests                              (fewer tests:  TESTS=tests/cli)
# make lint      environment, ruff and mypy
# make bench     a table of requests per second, ours beside tgt's
# make clean     removes the environment and all caches
SHELL := /bin/bash
BIN := .venv/bin
ARGS ?=
TESTS ?= tests
SOURCES := tcm fabrics backstores tests

.PHONY: run test lint bench clean help environment environment-dev

help:
	@sed -n '/^# make/s/^# //p' Makefile

environment:
	@tools/environment requirements.txt

environment-dev:
	@tools/environment requirements-dev.txt

run: environment
	@echo "running: $(BIN)/tcm-run --fabric iscsi $(ARGS)    (end it with Ctrl-C)"
	@$(BIN)/tcm-run --fabric iscsi $(ARGS) || { code=$$?; \
	    if [ $$code = 2 ]; then echo "  other options: make run ARGS=\"--portal 127.0.0.1:3261\"; all of them: $(BIN)/tcm-run --help" >&2; fi; exit $$code; }

lint: environment-dev
	@echo "lint: ruff check, ruff format --check, mypy --strict"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check $(SOURCES) || { echo "  fix: $(BIN)/ruff format $(SOURCES)" >&2; exit 1; }
	@$(BIN)/mypy

test: lint
	@echo "test: pytest $(TESTS)    (tests that need programs which are not installed skip and name the Debian package)"
	@$(if $(filter tests,$(TESTS)),tools/lanes,$(BIN)/python -m pytest $(TESTS))

bench: environment-dev
	@$(BIN)/python tools/bench $(ARGS)

clean:
	@echo "clean: removing .venv and caches"
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist build
	@find . -name .git -prune -o -type d \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +
