# From a fresh clone: `make book` (the HTML book, no PyTorch) and `make test` (everything is proved).
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
BOOK := .venv-book/bin
TEST := .venv/bin
CHAPTERS := $(CH)
# Two single-threaded workers beat one with two threads on the small tensors of tests and chapters.
WORKERS ?= 2
PORT ?= 8000
CUDA = $(PYTHON) -c 'import importlib.util, sys; \
  importlib.util.find_spec("torch") or sys.exit("no PyTorch here: make gpu PYTHON=path"); import torch; \
  torch.cuda.is_available() or sys.exit("a CUDA device is needed, and torch sees none")'
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help book test serve execute sync lint bench gpu gputest gpubench gpuchapters grade assets clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# --- environments -----------------------------------------------------------------------------

.venv-book/ready: pyproject.toml constraints.txt
	@$(PYTHON) book/tools/require_python.py
	@echo "Setting up .venv-book: what the rendered book needs, without PyTorch"
	@$(PYTHON) -m venv .venv-book
	@$(BOOK)/python $(PIP_INSTALL) $$($(PYTHON) book/tools/require_python.py --extra book)
	@touch $@

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) book/tools/require_python.py
	@echo "Setting up .venv: the library, its tests and the references they compare with"
	@$(PYTHON) -m venv .venv
	@$(TEST)/python $(PIP_INSTALL) torch==$$(sed -n 's/^torch==//p' constraints.txt)
	@$(TEST)/python $(PIP_INSTALL) -e '.[chapters,exercises,gpu,test]'
	@touch $@

# --- what people do ---------------------------------------------------------------------------

book: .venv-book/ready  ## build the HTML book from the stored notebooks
	@$(BOOK)/jupyter-book build . --path-output book --toc book/_toc.yml -W -n --keep-going --quiet
	@echo "The book is in book/_build/html/index.html (make serve shows it at http://localhost:8000)"

book/_build/html/index.html:
	@$(MAKE) book

serve: book/_build/html/index.html  ## show the built book at http://localhost:8000
	$(BOOK)/python -m http.server --bind 127.0.0.1 --directory book/_build/html $(PORT)

test: .venv/ready book assets  ## run every test and every notebook on the CPU
	OMP_NUM_THREADS=1 MINILLM_SCALE=quick $(TEST)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST)

assets: .venv/ready  ## fetch the pinned data and models that tests and chapters use
	$(TEST)/python -m minillm.assets chapters

execute: .venv/ready  ## run a chapter and store its outputs: make execute CH=05
	@test -n "$(CHAPTERS)" || { echo "which chapter? make execute CH=05"; exit 2; }
	$(TEST)/python book/tools/execute.py $(CHAPTERS)

sync: .venv/ready  ## regenerate notebooks' text, exercises, API pages, maps
	$(TEST)/python book/tools/listings.py
	$(TEST)/python book/tools/sync.py

lint: .venv/ready  ## ruff, import-linter, spelling, pairs in step
	$(TEST)/ruff format --check .
	$(TEST)/ruff check .
	PYTHONPATH=. $(TEST)/lint-imports
	$(TEST)/codespell
	$(TEST)/python book/tools/sync.py --check

bench: .venv/ready assets  ## ratios against peers on this CPU, each from one interleaved run
	@for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(TEST)/python $$file || exit 1; done

gpu: gputest gpubench gpuchapters  ## on a CUDA machine: kernels tested, timed, chapters run (with PYTHON)

gputest:  ## the kernels against their references, compiled for this machine's GPU
	@$(CUDA)
	PYTHONPATH=. $(PYTHON) -m pytest -q tests/kernels -o addopts=--import-mode=importlib

gpubench:  ## the kernels against PyTorch's: make gpubench ONLY="memory attention"
	@$(CUDA)
	PYTHONPATH=. $(PYTHON) tests/benchmarks/gpu_kernels.py $(if $(ONLY),--only $(ONLY))

gpuchapters:  ## the chapters about kernels, their outputs stored: make gpuchapters CH=25
	@$(CUDA)
	@$(PYTHON) -c 'import ipykernel, jupytext, nbclient' \
	  || { echo "the chapters were not run: pip install ipykernel jupytext nbclient"; exit 2; }
	PYTHONPATH=. $(PYTHON) book/tools/execute.py $(or $(CHAPTERS),25 26)

grade: .venv/ready  ## grade a folder of notebooks: make grade SUBMISSIONS=folder
	@test -n "$(SUBMISSIONS)" || { echo "which folder? make grade SUBMISSIONS=folder"; exit 2; }
	$(TEST)/python -m minillm.exercises.grade "$(SUBMISSIONS)"

clean:  ## remove what was built (not the environments)
	rm -rf book/_build graded build dist
