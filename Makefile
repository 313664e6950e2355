# Everything a person runs here. Every target makes what it needs.
#   make run      install, build and package the bundled example, print the comparison table
#   make test     install the development extras, check the code and run the quick tests; make test-all runs every test
#   make help     the rest
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
WORKERS ?= 2
# Held to tests/support/tiers.py by a test.
QUICK := tests/unit tests/conf tests/contract tests/stages tests/backends
# Exports run in an environment of their own, made once (some minutes, 2 GB).
EXPORTER = $${TUNECTL_EXPORTER:-$$($(BIN)/python -c 'from tunectl.backends.export import exporter_env; print(exporter_env.ensure_interpreter())')}
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: run run-full install develop check test test-rest test-ci test-all test-fast format lock clean help docs loop bench-sft bench-scale bench-align bench-curate bench-serve bench-serve-memory soak bench-yield bench-drift bench-canary bench-privacy bench-cli bench-sweep bench-example bench-federated faults screenshots demo docs-reference

run: install  ## build the bundled example on few rows, in minutes: raw documents to a release, with a verdict
	@$(BIN)/tunectl repro experiment=small

run-full: install  ## build the whole example: 24 minutes on two cores with AMX
	@$(BIN)/tunectl repro --reset-overrides

install: .venv/.run .venv/.exporter  ## make .venv and the exporter's environment: all that `make run` needs

develop: .venv/.dev  ## make .venv and install what developing needs

.venv/.run: requirements/run.txt requirements/torch.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet "pip>=23.3"  # before 23.3 pip warns of extras whose names have a hyphen (lxml's)
	@$(BIN)/python requirements/install.py torch.txt run.txt
	@$(BIN)/python -m pip install --quiet --no-deps -e . && touch $@
	@echo "activate the environment with: source .venv/bin/activate"

.venv/.exporter: requirements/export.txt .venv/.run
	@echo "making the exporter's environment (once; 2 GB)"
	@exporter="$(EXPORTER)" && test -x "$$exporter" && touch $@

.venv/.dev: .venv/.run requirements/dev.txt
	@$(BIN)/python requirements/install.py dev.txt
	@touch $@

check: .venv/.dev  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## check, then unit, config, contract, stage and backend tests with tiny models, on two workers (WORKERS=0: one process)
	$(BIN)/python -m pytest $(QUICK) -m quick -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST)

test-rest: .venv/.dev  ## what test leaves out, in one process: real engines, servers, the loop, containers, monitoring stack, faults
	TUNECTL_EXPORTER="$(EXPORTER)" $(BIN)/python -m pytest -m "not quick" -W default --durations=20 $(PYTEST)

test-ci: .venv/.dev  ## the selection of test-rest that .ci/run takes (tests/support/tiers.py)
	TUNECTL_EXPORTER="$(EXPORTER)" $(BIN)/python -m pytest -m ci -W default --durations=60 $(PYTEST)

test-all: test test-rest  ## every test; about an hour and a half more than test on two cores (not measured as one run); needs what .ci/install installs

test-fast: .venv/.dev  ## unit, config and contract tests only
	$(BIN)/python -m pytest tests/unit tests/contract tests/conf

format: .venv/.dev  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/.dev  ## resolve the lock files again from pyproject.toml; LOCK=--upgrade takes the newest versions
	$(BIN)/python requirements/lock.py $(LOCK)

loop: .venv/.run  ## the retraining loop on the example, with real processes; after `make run`
	@test -f .tunectl/releases/champion.json || $(MAKE) run
	@$(BIN)/python examples/local_lens/run_loop_demo.py

demo: .venv/.run  ## record again the project that `tunectl demo` shows; after `make run` and `make loop`
	@test -f .tunectl/loop/project/.tunectl/releases/champion.json || $(MAKE) loop
	@$(BIN)/python examples/local_lens/record_demo.py

bench-sft: .venv/.dev  ## training speed beside plain TRL
	$(BIN)/python benchmarks/bench_sft.py

bench-scale: .venv/.dev  ## two processes beside one, and the time from a kill to the next step, on a tiny model
	$(BIN)/python benchmarks/bench_scale.py --keep

bench-align: .venv/.dev  ## seconds a step of RLOO beside plain TRL
	$(BIN)/python benchmarks/bench_align.py

bench-curate: .venv/.dev  ## a million documents (or DOCUMENTS=10000000), exact and near duplicates, beside a peer
	$(BIN)/python benchmarks/bench_curate.py $(if $(DOCUMENTS),--documents $(DOCUMENTS) --no-peer --ray)

bench-serve: .venv/.dev  ## the server beside the bare engine and the peers that are installed, five interleaved rounds (hours; goes on where it stopped)
	$(BIN)/python benchmarks/bench_serve.py --keep

.PHONY: bench-serve-peers bench-step
bench-serve-peers: .venv/.dev  ## environments of vLLM, transformers and llama.cpp for bench-serve (once)
	$(BIN)/python benchmarks/serve_envs.py

bench-step: .venv/.dev  ## where one step of the server goes: prompts, inference, sampling, thread, process, HTTP; with a plot
	$(BIN)/python benchmarks/bench_step.py --keep

bench-serve-memory: .venv/.dev  ## the server's memory over 10,000 requests
	$(BIN)/python benchmarks/bench_serve.py --memory 10000 --keep

soak: .venv/.dev  ## the server beside hostile clients for half an hour: honest requests lose nothing
	$(BIN)/python benchmarks/soak.py --keep

bench-yield: .venv/.run  ## time to the first token of a live server with and without a training beside it (4 minutes after `make run`)
	@test -f .tunectl/releases/champion.json || $(BIN)/tunectl repro
	$(BIN)/python benchmarks/bench_yield.py --keep

bench-drift: .venv/.dev  ## false verdicts and delay of the drift monitor on real texts, beside other rules
	$(BIN)/python benchmarks/bench_drift.py

bench-canary: .venv/.dev  ## how often the sequential test errs under continuous peeking
	$(BIN)/python benchmarks/bench_canary.py

bench-privacy: .venv/.dev  ## recall and precision of finding personal data, beside Presidio's patterns (two minutes, and once its environment)
	$(BIN)/python benchmarks/bench_privacy.py --keep

bench-cli: .venv/.dev  ## start-up times
	$(BIN)/python benchmarks/bench_cli.py

bench-sweep: .venv/.dev  ## overhead of a trial beside a repro with nothing to do and its worktree
	$(BIN)/python benchmarks/bench_sweep.py --keep

bench-example: .venv/.dev  ## the example with five other seeds: is aligned better than tuned? (an hour and a half; goes on where it stopped; INSTRUCTIONS=avx2)
	$(BIN)/python benchmarks/bench_example.py --instructions $(or $(INSTRUCTIONS),native)

bench-federated: .venv/.dev  ## E2E in three unequal parts: BLEU of the federated adapter beside pooled and beside each part alone (three hours; goes on where it stopped)
	$(BIN)/python benchmarks/bench_federated.py --keep

faults: .venv/.dev  ## server, monitor, retrain controller and backups against overload, kills, webhook storms, full disks, poison; full counts; about an hour
	@failed=0; \
	  $(BIN)/python benchmarks/fault_tests.py --keep || failed=1; \
	  TUNECTL_FUZZ=200 $(BIN)/python -m pytest -q --timeout 3600 tests/serving/test_openapi.py || failed=1; \
	  TUNECTL_KILLS=20 $(BIN)/python -m pytest -q --timeout 3600 tests/backends/test_torchrun_kills.py || failed=1; \
	  $(BIN)/python benchmarks/fault_loop.py --keep || failed=1; \
	  exit $$failed

screenshots: .venv/.dev  ## take the pictures of the console again, from the demo, and of the dashboards, from a real Prometheus with two simulated days
	$(BIN)/python docs/make_screenshots.py
	TUNECTL_SCREENSHOTS=$(CURDIR)/monitoring/grafana/screenshots $(BIN)/python -m pytest tests/stack -k screenshots

docs: .venv/.docs  ## build the documentation site into build/docs/site, and check every link of it; `tunectl docs` opens it
	$(BIN)/python docs/build_site.py

.venv/.docs: requirements/docs.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python requirements/install.py docs.txt && touch $@

docs-reference: .venv/.dev  ## write docs/reference/ again: settings, commands, errors, metrics, files, reject reasons
	$(BIN)/python docs/generate_reference.py

clean:  ## forget everything that was built, the environment too
	rm -rf .venv .tunectl build artifacts .dvc/cache .dvc/tmp dvc.lock

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
