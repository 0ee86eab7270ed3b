# Nothing but make and Python 3.11 or newer is needed: the first target that you run installs everything into $(VENV).
VENV ?= .venv
# Environment of `make test-newest`, and what it tests: all, or some files.
NEWEST ?= .venv-newest
TESTS ?= tests
# Candidates, best first; the first one that is new enough makes the environment.
PYTHON ?= python3 python3.11 python3.12 python3.13 python3.14
# Of `make quickstart-whisper`: a folder in Hugging Face's layout, or a name on the hub; and a folder with train.jsonl and dev.jsonl.
WHISPER ?= openai/whisper-base
DATA ?=
# What a GPU machine has torch in; `make gpu-bench` makes no environment.
GPU_PYTHON ?= python3

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
IS_SUITABLE := import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))

# Your speech in place of the synthetic one; what is no speech stays.
OWN_ROWS = --data.init_args.val.speech $(DATA)/dev.jsonl --data.init_args.train \
    '[{"source": "$(DATA)/train.jsonl", "share": 0.5}, {"source": {"class_path": "NonSpeech", "init_args": {"num_rows": 20000, "seed": 1}}, "share": 0.5}]'
ON_WHISPER = fit --config configs/quickstart_whisper.yaml --model.init_args.policy.init_args.init_from $(WHISPER) $(if $(DATA),$(OWN_ROWS))

.DEFAULT_GOAL := help
.PHONY: help install quickstart quickstart-tts quickstart-whisper quickstart-seeds test test-slow test-docs test-dist test-newest test-vllm test-portable lint style format bench compare build-ratio gpu-bench figures ablation little-data tts-figures real docs notebook clean

help: ## list the targets
	@grep -E '^[a-z-]+:.* ## ' Makefile | sed -E 's/:.* ## /\t/' | expand -t 14

$(BIN)/pip:
	@found=; for python in $(PYTHON); do \
	    if $$python -c '$(IS_SUITABLE)' >/dev/null 2>&1; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "Python 3.11 to 3.14 with its venv module is needed; tried: $(PYTHON)." >&2; \
	    echo "Install one (Debian, Ubuntu: apt install python3-venv) or name yours: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	fi; \
	echo "Creating $(VENV) with $$found"; \
	$$found -m venv $(VENV)

$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing into $(VENV): about 6 GB, a few minutes, once"
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt -e '.[synth,test,dev]'
	@touch $@

install: $(INSTALLED) ## create the environment that all targets share

quickstart: $(INSTALLED) ## GRPO on the embedded default, ends with the before/after table
	$(BIN)/audiorl fit --config configs/quickstart.yaml

quickstart-tts: $(INSTALLED) ## GRPO for speech synthesis on a tiny system that ships with it; table, report, wav files
	$(BIN)/audiorl fit --config configs/quickstart_tts.yaml

quickstart-whisper: $(INSTALLED) ## GRPO on the real Whisper base: WHISPER=FOLDER, or from the hub; DATA=FOLDER with train.jsonl and dev.jsonl: your speech
	$(BIN)/audiorl $(ON_WHISPER)

quickstart-seeds: $(INSTALLED) ## docs/quickstart.md: the quickstarts over five seeds, each beside its control; set FSDD_ROOT for synthesis; an hour on one core
	$(BIN)/python -m experiments.quickstart_seeds --out runs/quickstart_seeds --write-docs

test: $(INSTALLED) ## all tests but the slow ones, offline, in as many processes as there are cores, at most four
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --durations=10

test-slow: $(INSTALLED) ## the tests that take minutes
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m slow --timeout=1800 --durations=10

test-docs: $(INSTALLED) ## every command of README, how-tos and notebooks, on tiny models, and the site; minutes
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "slow or not slow" --timeout=1800 --durations=10 tests/test_readme.py tests/test_howtos.py tests/test_your_checkpoint.py tests/test_your_data_page.py tests/test_extending.py tests/test_notebooks.py tests/test_site.py

test-dist: $(INSTALLED) ## sdist and wheel, installed in a new environment and run outside of the checkout; asks the package index for build tools
	$(BIN)/python -m tools.dist

test-newest: | $(BIN)/pip ## all tests (TESTS="FILES": these) on the newest packages that pyproject.toml allows, in $(NEWEST), 6 GB
	[ -x $(NEWEST)/bin/pip ] || $(BIN)/python -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --disable-pip-version-check --upgrade --upgrade-strategy eager -e '.[synth,test]'
	HF_HUB_OFFLINE=1 $(NEWEST)/bin/python -m pytest $(TESTS) --numprocesses auto --maxprocesses 4 --dist loadfile --durations=10

test-portable: $(INSTALLED) ## all tests under default, AVX2 and AVX-512 kernels, with one thread and two; six times as long as `make test`
	$(BIN)/python tools/portable_tests.py

lint: $(INSTALLED) ## ruff (rules and format) and mypy, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(INSTALLED) ## how openly the package is written, beside other codebases; `.venv/bin/python tools/style.py --help`
	$(BIN)/python tools/style.py

format: $(INSTALLED) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED) ## run benchmarks/
	@for file in $(filter-out benchmarks/compare_builds.py benchmarks/build_ratio.py benchmarks/whisper_step.py,$(wildcard benchmarks/*.py)); do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

compare: $(INSTALLED) ## this build against an earlier one on tiny runs: the same numbers, bit for bit; needs the git history
	$(BIN)/python benchmarks/compare_builds.py

build-ratio: $(INSTALLED) ## seconds of a step and of a start, this build beside an earlier one; twenty minutes; needs the git history
	$(BIN)/python benchmarks/build_ratio.py

test-vllm: $(INSTALLED) ## the engine against a real vLLM: set VLLM_PYTHON to the Python of its environment, see docs/engine.md; minutes
	@[ -n "$(VLLM_PYTHON)" ] || { echo "Set VLLM_PYTHON to the Python of an environment with vLLM, see docs/engine.md: make test-vllm VLLM_PYTHON=envs/vllm/bin/python" >&2; exit 1; }
	HF_HUB_OFFLINE=1 AUDIORL_VLLM_PYTHON=$(VLLM_PYTHON) $(BIN)/python -m pytest tests/vllm -m vllm -v --timeout=1800 --durations=10

gpu-bench: ## GPU tests and benchmarks in one command; without a registry bring build/wheels along
	@[ -d build/wheels ] || benchmarks/gpu/prepare.sh
	PYTHON=$(GPU_PYTHON) benchmarks/gpu/run.sh

figures: $(INSTALLED) ## the table of docs/results.md on real recordings; set FSDD_ROOT; hours on two CPU cores
	$(BIN)/python experiments/fsdd_asr.py --out runs/fsdd_figures --seeds 0 1 2

ablation: $(INSTALLED) ## docs/ablation.md, from the warm starts of `make figures`; set FSDD_ROOT; about an hour on two cores
	$(BIN)/python experiments/asr_ablation.py --out runs/asr_ablation --seeds 0 1 2

little-data: $(INSTALLED) ## docs/little_data.md, from the warm starts of `make figures`; set FSDD_ROOT; half an hour
	$(BIN)/python experiments/little_data.py --out runs/little_data --seeds 0

tts-figures: $(INSTALLED) ## docs/tts_figures.md: GRPO, DiffRO and both; set FSDD_ROOT; EARS="--whisper FOLDER ..." adds real ears; about three hours on two cores
	$(BIN)/python experiments/tts.py --out runs/tts_figures --seeds 0 1 2 $(EARS)

real: $(INSTALLED) ## docs/real_whisper.md: Whisper base on real speech, from REAL=FOLDER; two CPU hours on one core; FSDD_ROOT adds digits, DEV=FOLDER results of runs --dev
	@[ -n "$(REAL)" ] || { echo "Set REAL to a folder with whisper-base/ and asterisk/*.jsonl, see experiments/real/data.py: make real REAL=FOLDER" >&2; exit 1; }
	$(BIN)/python -m experiments.real.runs --real $(REAL) --out runs/real_whisper $(if $(START),--start $(START)) $(if $(FSDD_ROOT),--fsdd $(FSDD_ROOT))
	$(BIN)/python -m experiments.real.page --results runs/real_whisper/results $(if $(DEV),--dev $(DEV))

docs: $(INSTALLED) ## the site, with the reference from the docstrings, into build/site; needs no network to be read
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebook: $(INSTALLED) ## run notebooks/ and keep their outputs in them
	$(BIN)/python -m tools.notebooks --run notebooks/*.ipynb

clean: ## remove what can be rebuilt, but not the environment nor runs/
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
