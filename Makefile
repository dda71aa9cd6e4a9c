# make             what there is
# make PYTHON=...  which Python makes the environment (3.11 or newer)
# make WORKERS=... how many test files run at a time, each worker with a Spark session of its own (2)

PYTHON ?= python3
ARGS ?=
WORKERS ?= 2
VENV := .venv
RUN := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed
AIRFLOW := .venv-airflow
AIRFLOW_INSTALLED := $(AIRFLOW)/.installed
PIP := -m pip --disable-pip-version-check --no-input install --quiet --no-compile

.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench soak airflow clean python java

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make the environment in .venv (the targets below do it themselves)

demo: java $(INSTALLED) ## one night and two hours of recommendations on real groceries
	@$(RUN) -m jobs.demo

test: java $(INSTALLED) ## the tests; ARGS="-k name" picks some
	@$(RUN) -m pytest -m "not soak" -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(INSTALLED) ## style and types
	@$(RUN) -m ruff check .
	@$(RUN) -m mypy

bench: java $(INSTALLED) ## what features cost, measured and printed (quality: python tests/benchmarks/quality.py --help)
	@$(RUN) tests/benchmarks/feature_costs.py $(ARGS)

soak: java $(INSTALLED) ## the long proofs
	@$(RUN) -m pytest -m soak $(ARGS)

airflow: $(AIRFLOW_INSTALLED) ## an environment of its own with Airflow, for the test of jobs/dags

clean: ## remove what make and the demo made: environments, caches, builds, the demo's tables
	rm -rf $(VENV) $(AIRFLOW) build dist kairos_rec.egg-info warehouse/demo spark-warehouse metastore_db derby.log
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find conf features jobs model tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Asked before anything is downloaded: a missing Java or an old Python costs one line, not gigabytes.
java: python
	@$(PYTHON) jobs/java.py

python:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "error: Python 3.11 or newer is needed and $(PYTHON) was not found: install it or say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed and $(PYTHON) is $$("$(PYTHON)" --version 2>&1 | head -1): install it or say make PYTHON=/path/to/python3.11" >&2; exit 2; }

# The stamp is made last, so an interrupted installation is taken up again. What takes once is done here and not in each
# run: libraries are compiled on all cores (torch alone costs seconds in each process else; some ship templates that are no
# Python, which is no failure), and the session is started, which fetches Delta's jars and keeps Spark's classes ready.
$(INSTALLED): pyproject.toml | python java
	@echo "installing into $(VENV) (a few minutes, once) ..."
	@"$(PYTHON)" -m venv $(VENV)
	@$(RUN) $(PIP) -e '.[dev]'
	@$(RUN) -m compileall -qq -j 0 $(VENV)/lib || true
	@$(RUN) -m jobs.spark.session
	@touch $@

$(AIRFLOW_INSTALLED): .ci/airflow-requirements.txt | python
	@echo "installing Airflow into $(AIRFLOW) (a minute or two, once) ..."
	@"$(PYTHON)" -m venv $(AIRFLOW)
	@timeout 900 $(AIRFLOW)/bin/python $(PIP) -r .ci/airflow-requirements.txt
	@touch $@
