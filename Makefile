# `make` lists the targets. Each of them is complete: it sets up what it needs and can be the only command typed.
.DEFAULT_GOAL := help
.SUFFIXES:
MAKEFLAGS += --no-print-directory --no-builtin-rules
SHELL := /bin/sh

PYTHON := .venv/bin/python
# More arguments for pytest: make test ARGS='tests/unit -k digest'
ARGS ?=
# Where CI is set the run also fails when fewer `needs` tests ran than pyproject.toml expects.
CHECK_NEEDS := $(if $(CI),--needs-minimum)
VERBOSITY := $(if $(CI),-ra --durations=40,)

.PHONY: help quickstart notebooks test lint unit soak browser pictures bench vm docs clean

help: ## list the targets
	@sed -n 's/^\([a-z][a-z]*\):.*## \(.*\)$$/  make \1\t\2/p' Makefile | expand -t 20

quickstart: ## set up, run notebooks/quickstart.ipynb in a real kernel and show what it prints
	@sh scripts/quickstart.sh

notebooks: ## run the tutorials twice in real kernels, as root also as an ordinary user, and compare (ARGS='notebooks/02-*.ipynb' for some)
	@sh scripts/system-packages.sh tests/system-packages.txt
	@sh scripts/venv.sh test
	@$(PYTHON) notebooks/check.py $(ARGS)

test: ## set up, lint and run all tests but the slow suites (ARGS=... for pytest)
	@sh scripts/system-packages.sh tests/system-packages.txt
	@sh scripts/venv.sh test
	@$(MAKE) lint
	@sh scripts/pytest.sh $(VERBOSITY) $(CHECK_NEEDS) $(ARGS)

unit: ## only the tests that need neither root nor network
	@sh scripts/venv.sh test
	@$(PYTHON) -m pytest tests/unit $(ARGS)

lint: ## ruff, mypy and the direction of imports
	@sh scripts/venv.sh test
	@.venv/bin/ruff check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-logo --no-cache

soak: ## the long tests: many containers, kill -9 at random moments
	@sh scripts/system-packages.sh tests/system-packages.txt
	@sh scripts/venv.sh test
	@$(PYTHON) -m pytest -m soak --timeout 3600 $(ARGS)

browser: ## the notebook tests in JupyterLab and a real browser
	@sh scripts/system-packages.sh tests/system-packages.txt tests/system-packages-browser.txt
	@sh scripts/venv.sh test browser
	@$(PYTHON) -m pytest -m browser --timeout 300 $(ARGS)

pictures: ## make the pictures of docs/gallery.md anew, in JupyterLab and a real browser
	@sh scripts/system-packages.sh tests/system-packages.txt tests/system-packages-browser.txt
	@sh scripts/venv.sh test browser
	@$(PYTHON) scripts/pictures.py $(ARGS)

bench: ## measure everything beside podman, crun, docker and others, and write docs/measured (ARGS='--rounds 3 --only latency')
	@sh scripts/system-packages.sh tests/system-packages.txt
	@sh scripts/venv.sh test
	@$(PYTHON) benchmarks/everything.py $(ARGS)

vm: ## run the tests as root and as an ordinary user in a virtual machine with systemd and cgroup v2 only (ARGS='tester notebooks' for the tutorials)
	@bash scripts/vm/run.sh $(ARGS)

docs: ## build the site in docs/_build/html; CELLWALL_DOCS_EXECUTE=cache also runs the notebooks for it
	@sh scripts/venv.sh docs
	@$(PYTHON) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

clean: ## remove what the other targets made in this folder
	rm -rf .venv build dist docs/_build docs/reference docs/notebooks src/cellwall.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
