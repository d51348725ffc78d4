# Needs make and Python >= 3.10 with pip and venv; no git, and no compiler (with one, models are
# faster on a CPU: kernels/cpu/native).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install -c constraints.txt
INSTALLED := $(VENV)/.installed
KERNELS := $(addprefix swinv2_backbone/kernels/cpu/native/, native.cpp kernels.h roi_align.h)
INSTALLER := $(addprefix swinv2_backbone/cli/, install_detectron2.py detectron2_sdist.py archives.py pip.py)
# Tests use one thread each; what a file's tests share is made once.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile
# Threads that wait for work sleep: spinning ones slow a busy machine down tenfold.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help env demo demo-semantic test test-quick test-slow reliability reliability-full results experiments experiments-quick benchmark-coco benchmark-ade20k benchmark-imagenet docs lint clean

help:
	@echo "make env            $(VENV) with everything in it, Detectron2 too (PYTHON=python3.x to choose)"
	@echo "make demo           train and show a small Mask R-CNN"
	@echo "make demo-semantic  the same with a small UPerNet"
	@echo "make test           fast tests"
	@echo "make test-quick     core, kernels and checkpoints, without what takes seconds"
	@echo "make test-slow      all tests but the next"
	@echo "make reliability    kill, damage and resume trainings: within 40 minutes on two cores; docs/RELIABILITY.md"
	@echo "make reliability-full  the same with hundreds of kills and a long soak: hours"
	@echo "make results        small detectors on public photographs: hours on two cores; docs/RESULTS.md"
	@echo "make experiments    repeat the paper's claims on a small scale: an hour on two cores"
	@echo "make experiments-quick  that they run, within minutes"
	@echo "make benchmark-coco      train what has published numbers on COCO: days on 8 GPUs; docs/PUBLISHED.md"
	@echo "make benchmark-ade20k    the same on ADE20K"
	@echo "make benchmark-imagenet  the accuracy of the published models on ImageNet"
	@echo "make docs           the documentation as a site: site/index.html; needs Python >= 3.11"
	@echo "make lint           ruff and mypy"
	@echo "make clean          remove what was built; keeps $(VENV), datasets and output"

env: $(INSTALLED)

# Safe to repeat after an interruption: a $(VENV) without a working pip is made anew.
$(INSTALLED): setup.py constraints.txt tools/install_detectron2.py $(INSTALLER) $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python >= 3.10 is needed: make env PYTHON=python3.x")'
	@$(BIN)/python -m pip --version 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) setuptools wheel torch torchvision
	$(PIP) --no-build-isolation -e '.[d2,test,export]'
	$(BIN)/python tools/install_detectron2.py
	touch $@

demo: env
	$(BIN)/python tools/demo.py

demo-semantic: env
	$(BIN)/python tools/demo.py --semantic

test: env
	$(BIN)/python -m pytest $(PARALLEL)

test-quick: env
	$(BIN)/python -m pytest $(PARALLEL) tests/core tests/kernels tests/checkpoints \
		-m "not heavy and not slow and not reliability"

test-slow: env
	$(BIN)/python -m pytest $(PARALLEL) -m "not reliability"

reliability: env
	$(BIN)/python tools/run_reliability.py

reliability-full: env
	$(BIN)/python tools/run_reliability.py --full

# Of the sets whose clones are in the folder data; `tools/run_results.py --list` says how to get them.
results: env
	$(BIN)/python tools/run_results.py

experiments: env
	$(BIN)/python tools/run_experiments.py

experiments-quick: env
	$(BIN)/python tools/run_experiments.py --quick

# The sets are in the folder DATA; a training has GPUS processes.
DATA ?= datasets
GPUS ?= 8

benchmark-coco: env
	$(BIN)/python tools/run_published.py --suite coco --data "$(DATA)" --num-gpus $(GPUS)

benchmark-ade20k: env
	$(BIN)/python tools/run_published.py --suite ade20k --data "$(DATA)" --num-gpus $(GPUS)

benchmark-imagenet: env
	$(BIN)/python tools/run_published.py --suite imagenet --data "$(DATA)"

# What it needs more is only installed here; a warning is an error.
docs: env
	$(PIP) --quiet --no-build-isolation -e '.[docs]'
	$(BIN)/python -W ignore::FutureWarning -m sphinx --quiet --fail-on-warning --keep-going -b html docs site
	@echo "site/index.html"

lint: env
	$(BIN)/python -m ruff check . && $(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

clean:
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
