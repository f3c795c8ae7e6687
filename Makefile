# Everything a developer types. Each target sets up what it needs in .venv first; a second run finds it there.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH := $(shell grep '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help setup test test-arm64 test-browser test-android lint demo bench bench-stream bench-chat bench-finetune wheels clean

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make .venv with both distributions, editable, at the pinned versions

demo: $(VENV)/.ready ## real weights in, words out: compile, verify, transcribe, and a table of results
	@$(BIN)/sottovoce demo

lint: $(VENV)/.tests-ready ## ruff, ruff format, mypy
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

test: lint ## lint, then every test; the first run fetches real weights
	@$(BIN)/python -m pytest

test-arm64: $(VENV)/.tests-ready ## the built wheel and its bundles as on a Pi 4, a Pi 5 and a Zero 2 W, emulated
	@SOTTOVOCE_ARM64=required $(BIN)/python -m pytest tests/arm64

test-browser: $(VENV)/.tests-ready ## examples/browser in a headless Chromium, with what it needs from npm and apt
	@command -v npm >/dev/null || { echo "npm is needed: apt install nodejs npm"; exit 1; }
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } \
		|| { echo "Chromium is needed: apt install chromium"; exit 1; }
	@cd examples/browser && npm ci --ignore-scripts --no-audit --no-fund --silent && npm run --silent vendor
	@cd examples/browser && npm run --silent check
	@$(BIN)/python -m pytest tests/examples/test_browser_parts.py tests/examples/test_browser_page.py

test-android: $(VENV)/.tests-ready ## what of examples/android runs on a workstation; Java is needed, Kotlin is fetched
	@$(BIN)/python tests/examples/kotlin.py
	@$(BIN)/python -m pytest tests/examples/test_android_core.py tests/examples/test_android_termux.py

bench: $(VENV)/.bench-ready ## beside other systems: make bench ARGS='--data ... --model ...'
	@$(BIN)/python benchmarks/transcribe.py $(or $(ARGS),--help)

bench-stream: $(VENV)/.bench-ready ## the same for live audio: make bench-stream ARGS='--data ... --model ...'
	@$(BIN)/python benchmarks/stream.py $(or $(ARGS),--help)

bench-chat: $(VENV)/.bench-ready ## the same for language models: make bench-chat ARGS='--model SOURCE=BUNDLE'
	@$(BIN)/python benchmarks/chat.py $(or $(ARGS),--help)

bench-finetune: $(VENV)/.tests-ready ## LoRA training beside transformers and PEFT: make bench-finetune ARGS='--steps 3'
	@$(BIN)/python benchmarks/finetune.py $(ARGS)

wheels: $(VENV)/.tests-ready ## both wheels, in dist/
	@rm -rf build runtime/build
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist ./runtime .
	@rm -rf build runtime/build
	@ls dist/*.whl

clean: ## remove .venv, caches and what was built
	rm -rf $(VENV) build dist runtime/build *.egg-info runtime/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch goes first, by its exact version: a range makes pip weigh builds that nothing here needs.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@echo "installing $(TORCH), the largest download"
	@$(PIP) install -c constraints.txt $(TORCH)
	@touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml runtime/pyproject.toml
	@echo "installing sottovoce and sottovoce-compiler"
	@$(PIP) install -c constraints.txt -e ./runtime -e .
	@touch $@

$(VENV)/.tests-ready: $(VENV)/.ready
	@echo "installing what the tests need"
	@$(PIP) install -c constraints.txt -e ./runtime -e '.[test]'
	@touch $@

$(VENV)/.bench-ready: $(VENV)/.ready
	@echo "installing the systems to compare with"
	@$(PIP) install -c constraints.txt -e ./runtime -e '.[bench]'
	@touch $@
