# Two commands do all the set-up on a machine with Python 3.11 or later: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
OLDEST := .venv-oldest
QUANTISE := .venv-quantise
EXPLORE := .venv-explore
SUPPLY := .venv-supply
BIN := $(VENV)/bin

COVERED := tests/linalg tests/engine tests/budget tests/contracts tests/checkpoint tests/anatomy \
  tests/serving/test_sentence_folders.py tests/test_hard_models.py tests/test_pipeline.py \
  tests/test_pipeline_experts.py tests/test_pipeline_failures.py tests/test_resume.py tests/test_inspection.py \
  tests/test_offload.py tests/test_offload_reads.py tests/test_plan_offloaded.py tests/test_ranks.py \
  tests/test_time_left.py tests/test_short_of_memory.py tests/test_measurement.py \
  tests/test_measurement_folders.py tests/test_finished_before.py

.PHONY: demo test check audit coverage hashes sbom advisories docs format clean

demo: $(VENV)/.installed
	$(BIN)/statprune demo

test: check
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# What takes longer, pages in Chromium, llama.cpp (compiled: a C++ compiler is needed), lm-evaluation-harness, and the
# oldest transformers supported.
audit: $(VENV)/.installed-browser $(SUPPLY)/.installed $(VENV)/.installed-llama-cpp $(VENV)/.installed-harness $(OLDEST)/.installed $(QUANTISE)/.installed $(EXPLORE)/.installed
	$(BIN)/python -m pytest -n 2 -m audit
	$(BIN)/python -m pytest -n 2 tests/export tests/cli/test_export_gguf.py
	$(BIN)/python -m pytest tests/evaluation/test_harness.py tests/cli/test_harness_command.py
	$(QUANTISE)/bin/python -m pytest -m audit tests/serving/test_quantise_afterwards.py
	$(EXPLORE)/bin/python -m pytest -m 'audit or not audit' tests/explore tests/cli/test_explore_command.py tests/browser/test_explore_page.py
	$(OLDEST)/bin/python -m pytest -n 2 tests/contracts tests/checkpoint tests/engine
	$(MAKE) coverage

# The site, in site/, with the notebooks' outputs; a broken link, anchor or name fails it.
docs: $(VENV)/.installed-dev
	NO_MKDOCS_2_WARNING=1 STATPRUNE_DOCS_EXECUTE=1 $(BIN)/mkdocs build --strict

# Branches of the packages that compute, reached by the tests of `make test`: at least 90% of each.
coverage: $(VENV)/.installed-dev
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n 2 $(COVERED)
	$(BIN)/python -m coverage combine --quiet
	for package in linalg engine budget surgery checkpoint; do \
	  $(BIN)/python -m coverage report --include="src/statprune/$$package/*" --skip-covered --fail-under=90 || exit 1; done

# What a user's environment takes, for all platforms, with the digest of every file (SECURITY.md says how to install it).
hashes: $(SUPPLY)/.installed
	printf 'hatchling\n' | $(SUPPLY)/bin/uv --quiet pip compile pyproject.toml - --constraint constraints.txt --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --custom-compile-command 'make hashes' --output-file requirements-hashed.txt

sbom: $(VENV)/.installed $(SUPPLY)/.installed
	mkdir -p dist
	$(SUPPLY)/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --of JSON -o dist/sbom.cdx.json $(BIN)/python

advisories: $(SUPPLY)/.installed
	$(SUPPLY)/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf site $(VENV) $(OLDEST) $(QUANTISE) $(SUPPLY) $(EXPLORE) demo-output .pytest_cache .ruff_cache .mypy_cache .hypothesis mutants
	rm -f .coverage .coverage.*

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(OLDEST)/.installed: pyproject.toml constraints.txt constraints-oldest.txt
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[test]'
	touch $@

$(QUANTISE)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(QUANTISE)
	$(QUANTISE)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[test,quantise]'
	touch $@

# Gradio takes no pillow 13 yet.
$(EXPLORE)/.installed: pyproject.toml constraints.txt | $(VENV)/.installed-browser
	$(PYTHON) -m venv $(EXPLORE)
	sed 's/^pillow==.*/pillow==12.3.0/' constraints.txt > $(EXPLORE)/constraints.txt
	$(EXPLORE)/bin/python -m pip install --quiet --constraint $(EXPLORE)/constraints.txt --editable '.[test,browser,explore]'
	touch $@

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.installed-llama-cpp: $(VENV)/.installed-dev
	CMAKE_ARGS="-DLLAVA_BUILD=OFF" $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,llama-cpp]'
	touch $@

$(VENV)/.installed-harness: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,harness]'
	touch $@

# Chromium is Debian's package: as root, or by sudo; elsewhere install it beforehand.
$(VENV)/.installed-browser: $(VENV)/.installed-dev
	command -v chromium >/dev/null || { SUDO=$$(test $$(id -u) = 0 || echo sudo); \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq --no-install-recommends chromium; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,browser]'
	touch $@

$(SUPPLY)/.installed: constraints-supply.txt
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --quiet --constraint constraints-supply.txt build cyclonedx-bom pip-audit uv
	touch $@
