# mrisem: `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.up-to-date
DOCS_STAMP := .venv/.docs-up-to-date
# an index with torch for CPUs alone (docs/install.md); empty: the default build
TORCH_INDEX ?=
LOCKED := requirements.lock
ifneq ($(TORCH_INDEX),)
LOCKED := .venv/without-cuda.lock
endif
DEMO ?= outputs/demo
MRISEM := $(BIN)/mrisem
DEMO_DATA := data=brain,knee 'data.root=$(DEMO)/data/$${data.name}' data.max_slices=1 scale=demo \
  mask.acceleration=4 output_dir=$(DEMO)/runs

# vgg16, the default, guides the demo, and where its weights cannot be had the small network that ships
ENCODER = $(shell $(MRISEM) doctor encoder=vgg16 >/dev/null 2>&1 || echo encoder=janus_mini)

# each is a folder of experiments/ with a sweep.yaml
QUESTIONS := what-guides contrast-settings embedding-levels prior-weight acceleration auxiliary-subjects temperature \
  embedding-umap main-table abnormalities prompt-control prompt-robustness perturbation centering \
  cheaper-guidance foundation-backbone
# need images, or what their pages say how to make
WITH_IMAGES := real-images adapted generative compressed-guidance

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow bench tune-baselines pretrain experiments $(QUESTIONS) $(WITH_IMAGES) check docs notebook docs-commands format clean

help: ## list the targets
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo "  questions (SCALE=demo or paper, OVERRIDES=...):"
	@$(foreach q,$(QUESTIONS) $(WITH_IMAGES),printf "  make %-18s %s\n" $(q) "$$(sed -n '1s/^# //p' experiments/$(subst -,_,$(q))/sweep.yaml)";)

setup: $(STAMP) ## make .venv with the exact versions of requirements.lock (minutes, about 6 GB)

$(STAMP): requirements.lock requirements-nodeps.lock pyproject.toml
	@echo "== .venv is missing or out of date: installing requirements.lock (minutes, about 6 GB)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mrisem needs Python 3.11 or newer; try: make setup PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
ifneq ($(TORCH_INDEX),)
	@grep -vE '^(nvidia-|cuda-|triton==)' requirements.lock >$(LOCKED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --index-url $(TORCH_INDEX) \
	  $$(grep -oE '^(torch|torchvision)==[0-9.]+' requirements.lock)
endif
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCKED)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-nodeps.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)
	@echo "== .venv is ready"

demo: $(STAMP) ## simulate, reconstruct by every method, report (minutes on two cores)
	@echo "== 1/6 simulated brains and knees in the fastMRI format"
	@$(MRISEM) simulate scale=demo output_dir=$(DEMO)/data
	@echo "== 2/6 embedding banks of the auxiliary subjects: $(or $(ENCODER:%=%, since the weights of vgg16 are missing),encoder=vgg16)"
	@for anatomy in brain knee; do \
	  $(MRISEM) bank data=$$anatomy data.root=$(DEMO)/data/$$anatomy scale=demo $(ENCODER) || exit 1; \
	done
	@echo "== 3/6 classical baselines"
	@$(MRISEM) reconstruct --multirun $(DEMO_DATA) model=zero_filled,tv,l1_wavelet
	@echo "== 4/6 unrolled network, fitted to each scan, without and with the prior"
	@$(MRISEM) reconstruct --multirun $(DEMO_DATA) model=unrolled prior=none,image_same \
	  model.checkpoint=unrolled_mini $(ENCODER)
	@echo "== 5/6 scores"
	@$(MRISEM) evaluate output_dir=$(DEMO)/runs
	@echo "== 6/6 report"
	@$(MRISEM) report 'runs=[$(DEMO)/runs]' output_dir=$(DEMO)
	@echo "== done; open in a browser: $(DEMO)/report/index.html"

test: $(STAMP) ## run the tests (minutes)
	@echo "== tests"
	@$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(STAMP) ## run the tests that take minutes each
	@$(BIN)/python -m pytest -m slow

bench: $(STAMP) ## time and memory against named alternatives, one table in outputs/bench (an hour, 17 GB; OPTIONS="--only solve")
	@$(BIN)/python tests/benchmarks/run.py $(OPTIONS)

tune-baselines: $(STAMP) ## choose the classical baselines' weights on auxiliary subjects (5 minutes)
	@test -d outputs/demo/data/brain || $(MRISEM) simulate scale=demo output_dir=outputs/demo/data
	@$(BIN)/python experiments/tune_baselines/tune.py

pretrain: $(STAMP) ## train unrolled_mini, diffusion_mini and the next janus_mini (hours of two cores)
	@PATH="$(CURDIR)/$(BIN):$$PATH" experiments/pretrain_unrolled/run.sh outputs/pretrain_unrolled
	@PATH="$(CURDIR)/$(BIN):$$PATH" experiments/pretrain_diffusion_mini/run.sh outputs/pretrain_diffusion_mini
	@PATH="$(CURDIR)/$(BIN):$$PATH" experiments/pretrain_janus_mini/run.sh outputs/pretrain_janus_mini

SCALE ?= demo
$(QUESTIONS) $(WITH_IMAGES): $(STAMP)
	@$(BIN)/python experiments/run.py $(subst -,_,$@) --scale $(SCALE) $(OVERRIDES)

experiments: $(STAMP) ## answer every question at SCALE=demo (or paper), then write the READMEs' tables
	@failed=; for question in $(QUESTIONS); do \
	  $(MAKE) --no-print-directory $$question || failed="$$failed $$question"; done; \
	$(BIN)/python experiments/tables.py --scale $(SCALE); \
	test -z "$$failed" || { echo "== failed:$$failed"; exit 1; }

check: $(STAMP) ## ruff, mypy, the import floors, and the numbers of README and pages against the kept results
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python experiments/tables.py --check

docs: $(DOCS_STAMP) ## build the site of all pages in outputs/site, strictly
	@NO_MKDOCS_2_WARNING=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m mkdocs build --quiet --strict -f docs/site/mkdocs.yml
	@echo "== the site: outputs/site/index.html"

$(DOCS_STAMP): $(STAMP) requirements-docs.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-docs.lock
	@touch $(DOCS_STAMP)

notebook: $(STAMP) ## run the notebooks of docs again and keep their outputs (a minute)
	@OMP_NUM_THREADS=1 $(BIN)/python docs/notebooks/run.py

docs-commands: $(STAMP) ## run every command of README and pages on simulated data, in a fresh clone (20 minutes beside other work)
	@OMP_NUM_THREADS=1 $(BIN)/python tests/commands.py

format: $(STAMP) ## format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean: ## remove outputs and caches (not .venv)
	rm -rf outputs multirun .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
