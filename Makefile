# One command a job; each makes the virtual environment first, where it is missing or out of date.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SUITE = build/suite
SIMULATE = $(BIN)/cosmoflow simulate --particles 128 --pixels 64 --keep-bits 6 --out

.PHONY: help env demo test docs workshop notebooks results bench suite weights train-mini train-scales train-base train-paper clean

help:  ## print this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# What pip would compile on one core is compiled on all, but for what nobody runs here.
UNREAD = /(tests|testing/_internal|fontTools|ghapi|jedi|mypyc?|onnxruntime|physics|prompt_toolkit|torchgen)/
env: $(VENV)/.ready  ## make the virtual environment

$(VENV)/.ready: constraints.txt settings.ini setup.py pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'cosmoflow needs Python 3.11 or newer: make PYTHON=python3.11 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m compileall -q -j 0 -x '$(UNREAD)' $(VENV)/lib || true
	touch $@

demo: env  ## train briefly, reconstruct held-out maps, write demo/
	$(BIN)/cosmoflow demo --out demo

# Three on two cores: while one waits for a browser or a disk, the others compute.
PROCESSES = $(shell $(PYTHON) -c "import os; print(max(3, os.cpu_count()))")
test: env  ## run every notebook and test, one process a core, and three at least
	OMP_NUM_THREADS=1 $(BIN)/pytest tests -n $(PROCESSES) --durations 25

docs: env  ## build the documentation site into _docs and test it in Chromium or Chrome, where there is one (QUARTO=1: Quarto's pages instead, untested)
	$(BIN)/python nbs/site/_build.py $(if $(QUARTO),--quarto)
	$(if $(QUARTO),,SITE_IS_BUILT=1 $(BIN)/pytest tests/test_site.py tests/test_live.py)

workshop: env  ## write the students' versions of the lessons, the solutions that catch_up puts in, and into build/workshop what is handed out
	$(BIN)/python nbs/workshop/_build.py build/workshop

notebooks: env  ## run every notebook in place, top to bottom, keeping its outputs
	$(BIN)/python nbs/site/_run.py nbs/*.ipynb nbs/*/*.ipynb
	$(BIN)/nbdev-clean

SIMULATE_TRAINING = $(SIMULATE) build/training --set LH --sims 0:400
FULL = COSMOFLOW_FULL=1 $(BIN)/python nbs/site/_run.py --out build/results
results: env  ## run every experiment in full (hours on two cores; finished trainings are kept), and make their table
	$(SIMULATE_TRAINING)
	-$(BIN)/cosmoflow fetch mini-128
	@missing=; for page in nbs/experiments/*.ipynb; do $(FULL) $$page || missing="$$missing $$page"; done; \
	  $(BIN)/python nbs/site/_run.py nbs/tools/results.ipynb; \
	  if [ -n "$$missing" ]; then echo "Not run in full:$$missing. The top of each says what it reads, and what makes it."; exit 1; fi

bench: env  ## time every job against a plain way of doing it, print the ratios, keep them in cosmoflow/records/benchmarks (twenty to forty-five minutes of two cores)
	$(BIN)/cosmoflow bench --out cosmoflow/records/benchmarks

suite: env  ## rerun the simulations that ship with the package (half an hour on two cores)
	$(SIMULATE) $(SUITE) --set LH --sims 0:120
	$(SIMULATE) $(SUITE) --set 1P
	$(SIMULATE) $(SUITE) --set CV --sims 0:10
	$(SIMULATE) $(SUITE) --set WDM --sims 0:14
	$(SIMULATE) $(SUITE) --set CDM --sims 0:14
	mkdir -p cosmoflow/suite
	cp $(SUITE)/*.npy $(SUITE)/*.txt $(SUITE)/*.json cosmoflow/suite/

weights: train-mini train-scales train-base  ## retrain all the weights that ship

TRAIN = $(BIN)/cosmoflow train --preset mini --data build/training --precision auto --resume
train-mini: env  ## retrain the shipped weights `mini`, and those made from them or beside them, `mini-fast` and the VAE (some seven hours on two cores, simulations included)
	$(SIMULATE_TRAINING)
	$(TRAIN) --sims 0:160 --epochs 50 --batch-size 16 --norm-epochs 1 --pooled 0 --siblings 0 --seed 0 --out build/first
	$(TRAIN) --init build/first --epochs 7 --batch-size 16 --lr 5e-4 --norm-epochs 0 --siblings 0 --seed 1000 --out build/second
	$(TRAIN) --init build/second --epochs 26 --batch-size 64 --norm-epochs 0 --seed 2000 --out build/third
	$(TRAIN) --init build/third --freeze-encoder --epochs 21 --norm-epochs 0 --siblings 0 --seed 3000 --out build/mini
	$(BIN)/cosmoflow evaluate --model build/mini --data build/training --out build/evaluation
	$(BIN)/cosmoflow distill --model build/mini --data build/training --out build/fast
	$(FULL) nbs/course/12_vae.ipynb

train-scales: env  ## retrain the shipped weights `mini-scales`, whose field is sorted by scale (an hour on two cores, simulations apart)
	$(SIMULATE_TRAINING)
	$(TRAIN) --waves --pooled 0 --siblings 0.1 --batch-size 32 --epochs 21 --seed 0 --out build/scales

train-base: env  ## retrain the shipped weights `base`, which need a GPU (a quarter of an hour of an H200, simulations included), and measure them
	$(SIMULATE) build/full --set LH --sims 0:1000
	$(BIN)/cosmoflow train --preset base --data build/full --resume --out build/base
	$(BIN)/cosmoflow evaluate --model build/base --data build/full --out build/evaluation_base

# The paper's training on open data. Each line goes on where it stopped, so run it again until it ends.
# A tiny budget, to try it: make train-paper PAPER=build/try SIMS=0:10 PARTICLES=16 PIXELS=32 PAPER_TRAIN="--epochs 1 --batch-size 8" CHANNELS=8
# A quarter of an hour of an H200: the command in nbs/experiments/11_paper.ipynb.
PAPER = build/paper
SIMS = 0:1000
PARTICLES = 128
PIXELS = 128
CHANNELS = 8 16
PAPER_TRAIN = --precision auto --compile
train-paper: env  ## train the paper's architecture with the paper's schedule on 1,000 simulations (needs a GPU: some two hours of an H200, days of a CPU)
	$(BIN)/cosmoflow simulate --set LH --sims $(SIMS) --particles $(PARTICLES) --pixels $(PIXELS) --keep-bits 6 --out $(PAPER)/maps
	for c in $(CHANNELS); do \
	  $(BIN)/cosmoflow train --preset paper --channels $$c --data $(PAPER)/maps $(PAPER_TRAIN) --resume --out $(PAPER)/$$c && \
	  $(BIN)/cosmoflow evaluate --model $(PAPER)/$$c --data $(PAPER)/maps --out $(PAPER)/evaluation_$$c || exit 1; \
	done

clean:  ## remove what the commands above made, but not the environment
	rm -rf build dist demo _proc _docs
