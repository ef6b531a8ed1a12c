# make help lists what there is.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
CORES ?= 2
FLAVOUR ?= cuda
VENV := .venv
# rules call `python`: the environment's own
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# images often set it; without compiled files each of a study's processes compiles its libraries anew, for seconds
unexport PYTHONDONTWRITEBYTECODE

# A stamp carries the locks' content, and the folder since an environment cannot be moved: whatever changes, it is made
# again, and touching a file makes nothing.
digest = $(shell (cat $(1); echo '$(CURDIR) $(PYTHON)') | sha256sum | cut -c1-16)
HOST := $(VENV)/.host-$(call digest,envs/uv.lock envs/host.lock envs/torch.lock)
TEST := $(VENV)/.test-$(call digest,envs/uv.lock envs/host.lock envs/torch.lock envs/test.lock)

.PHONY: help env demo docs test lock image compare merge plan watch

help: ## This list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

env: $(HOST) ## The environment alone: . .venv/bin/activate, then snakemake --cores 1

demo: $(HOST) ## Environment, the default study on this machine, report: results/demo/
	snakemake --cores $(CORES)
	snakemake --report results/demo/report.html
	@python -m workflow.tradeoff.report.show --tables results/demo/tables
	@echo
	@printf '%s\n' "Report:      results/demo/report.md" "As a page:   results/demo/report.html"
	@echo
	@cat results/demo/deploy/command.txt

docs: $(HOST) ## README's table and figure from the last make demo
	python -m docs.refresh results/demo

test: $(TEST) ## Linters, then unit, DAG and end-to-end tests
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/rules
	snakemake --lint
	pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder $(PYTEST)

compare: $(HOST) ## Two runs side by side: make compare RUNS="results/a results/b"
	@test "$(words $(RUNS))" = 2 || { echo 'error: name two result folders: make compare RUNS="results/a results/b"' >&2; exit 2; }
	python -m workflow.tradeoff.report.compare $(RUNS)

merge: $(HOST) ## Halves of a study run apart: make merge RUNS="a/demo b/demo" CONFIG=config/mine.yaml
	@test -n "$(CONFIG)" -a -n "$(RUNS)" || { echo 'error: name results folders and their config: make merge RUNS="a/demo b/demo" CONFIG=config/mine.yaml' >&2; exit 2; }
	python -m workflow.tradeoff.run.merge $(RUNS) --config $(CONFIG)
	snakemake --cores $(CORES) --configfile $(CONFIG) --rerun-triggers mtime

plan: $(HOST) ## What a study will take: make plan CONFIG=config/t4.yaml [CARD_GB=16] [THREADS=8]
	@python -m workflow.tradeoff.run.plan $(or $(CONFIG),config/config.yaml) $(if $(CARD_GB),--card-gb $(CARD_GB)) $(if $(THREADS),--threads $(THREADS))

watch: $(HOST) ## A running server against what a study measured: make watch URL=http://127.0.0.1:8000 STUDY=demo
	@test -n "$(URL)" -a -n "$(STUDY)" || { echo 'error: name a server and a study: make watch URL=http://127.0.0.1:8000 STUDY=demo' >&2; exit 2; }
	@test -e .venv-serve/made -a .venv-serve/made -nt envs/serve.lock || { python envs/install.py serve .venv-serve && touch .venv-serve/made; }
	@python -m workflow.tradeoff.serve.watch --url "$(URL)" --results "results/$(STUDY)" --generator .venv-serve/bin/aiperf \
	  $(if $(MODEL),--model "$(MODEL)") $(if $(VARIANT),--variant "$(VARIANT)") $(WATCH)

lock: $(TEST) ## Write envs/*.lock from envs/*.in; LOCK=--upgrade takes the newest allowed versions
	python envs/lock.py $(LOCK)

image: ## The container image for --use-singularity: make image [FLAVOUR=cuda|cpu]
	bash envs/build-image.sh $(FLAVOUR)

$(HOST):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo 'error: $(PYTHON) is not a Python 3.11 or later: name one, as in make demo PYTHON=python3.12' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo 'error: $(PYTHON) has no venv: install it (Debian and Ubuntu: apt install python3-venv)' >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the packages of envs/host.lock into $(VENV): a minute or two, less once they are in uv's cache"
	python envs/install.py host
	@touch $@

$(TEST): $(HOST)
	@echo "Installing the packages of envs/test.lock into $(VENV)"
	python envs/install.py test
	@touch $@
