# Baton. `make` alone lists what there is.

SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help run test test-models test-ingest test-deploy image check bench load chaos replay eval format lock docs \
    dashboards clean venv venv-dev test-tools

PYTHON ?=
# Only for `make run`: PORT=9000 chooses the port of the page, ARGS="…" passes further options to `baton run`.
PORT ?=
ARGS ?=
# Only for `make test`: TESTS="tests/unit -k settings" runs a part, JOBS is the number of test processes (most tests wait
# more than they compute).
TESTS ?=
JOBS ?= 4
# Only for `make test-ingest`.
FILES ?= 1000
# Only for `make chaos`: seconds, seed of the faults, and CLUSTER=1 for three nats-servers. ARGS passes further options.
DURATION ?= 600
SEED ?= 1
CLUSTER ?=
# Only for `make bench`: which of the programs in bench/. BENCH=delivery ARGS=--help says what one can do.
BENCH ?= relay delivery idle resumes slow_readers dispatch overhead retrieval
# For `make replay`, the gateway to ask; for `make load`, one that runs instead of one that is started for it.
URL ?=
# Only for `make load`: a file that says what the users do (docs/load.md).
SCENARIO ?=

# Only for `make image`: its name, and what it is built on (one made here of Debian's packages where it is empty).
IMAGE ?= localhost/baton:dev
BASE ?=

# Only for `make eval`: DATA="dev-v1.1.json cmrc2018_dev.json" puts the whole system beside bm25s on such files;
# EMBEDDER=openai (with BATON_EMBEDDING_URL and so on) or module:attribute configures one. ARGS passes further options.
DATA ?=
EMBEDDER ?=

export PYTHON IMAGE BASE
# Packages are installed without bytecode; each module is compiled when it is first used. Where this were forbidden,
# every start would pay for it again.
unexport PYTHONDONTWRITEBYTECODE

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\n'
	@printf '  %s\n' 'make run PORT=9000            another port' \
	    'make run ARGS=--help          what else `baton run` can do' \
	    'make test TESTS=tests/unit    a part of the tests' \
	    'make chaos DURATION=60 SEED=2  a minute of other faults; with CLUSTER=1 on three nats-servers' \
	    'make eval DATA="dev.json …"    SQuAD- or CMRC-style files, beside bm25s'

run: venv ## Start Baton with its demo documents, and say where; Ctrl-C stops it.
	@exec .venv/bin/baton run $(if $(PORT),--port $(PORT)) $(ARGS)

test: venv-dev test-tools ## Run all tests on real servers (installs what they need).
	@.venv/bin/python -m pytest -n $(JOBS) --dist worksteal $(TESTS)

test-models: venv-dev ## Test against real inference servers and a model made here (the first time 11 minutes, 1.4 GB).
	@scripts/models.sh
	@TEST_MODELS=.make/models .venv/bin/python -m pytest tests/models $(ARGS)

test-ingest: venv-dev ## Bring in FILES mixed files (1,000), some of them broken, while a worker is killed.
	@FILES=$(FILES) .venv/bin/python -m pytest -n 0 -s tests/ingest $(ARGS)

test-deploy: venv-dev test-tools ## Check manifests, dashboards and alerts on real servers; after `make image` the image too.
	@scripts/deploy_tools.sh
	@TEST_DEPLOY=.make/deploy .venv/bin/python -m pytest -n 2 --dist loadfile -r s --timeout 600 tests/deploy $(ARGS)

image: ## Build the image without a Docker daemon. IMAGE=name, BASE=another base image, ARGS=further options.
	@scripts/image.sh $(ARGS)

check: venv-dev ## Lint, check the formatting and the types.
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

bench: venv-dev ## Measure what Baton costs beside something simpler, each as a ratio (docs/benchmarks.md).
	@for one in $(BENCH); do \
	    printf '== bench/%s.py\n\n' $$one && .venv/bin/python -m bench.$$one $(ARGS) && printf '\n' || exit 1; \
	done

chaos: venv-dev ## Kill, freeze and cut off real processes under load, and prove that no answer loses a frame.
	@exec .venv/bin/python -m tests.chaos --duration $(DURATION) --seed $(SEED) $(if $(CLUSTER),--cluster) $(ARGS)

load: venv-dev ## Many connections and questions on a Baton started for it (or URL), every frame checked; names the first limit.
	@exec .venv/bin/python -m bench.load $(if $(URL),--url $(URL)) $(if $(SCENARIO),--scenario $(SCENARIO)) \
	    --out .baton/load/report.html --json .baton/load/report.json $(ARGS)

replay: venv ## Ask a running Baton 100 questions twice, and report whether the same frames came back.
	@.venv/bin/python -m evaluation.replay $(if $(URL),--url $(URL)) $(ARGS)

eval: venv-dev ## Ask the shipped questions of a Baton started for it, and write .baton/eval/report.html.
ifneq ($(DATA),)
	@exec .venv/bin/python -m evaluation.against_bm25 $(DATA) $(if $(EMBEDDER),--embedder $(EMBEDDER)) \
	    --out .baton/eval/report.html --json .baton/eval/report.json $(ARGS)
else
	@$(if $(EMBEDDER),BATON_EMBEDDER=$(EMBEDDER)) exec .venv/bin/baton eval evaluation/sets/handbook.zh.jsonl \
	    evaluation/sets/handbook.en.jsonl --corpus examples/hr_assistant/documents \
	    --out .baton/eval/report.html --json .baton/eval/report.json $(ARGS)
endif

format: venv-dev ## Format the code and put right what the linter can.
	@.venv/bin/ruff check --fix --quiet . || true
	@.venv/bin/ruff format .

docs: venv-dev ## Regenerate the parts of the docs that come from code.
	@.venv/bin/python -m services.common.settings_doc docs/settings.md
	@.venv/bin/python -m services.common.metrics_doc docs/metrics.md
	@.venv/bin/python deploy/prometheus/rule.py

dashboards: venv-dev ## Make Grafana's dashboards anew from the code in deploy/grafana.
	@scripts/dashboards.sh

lock: ## Resolve the dependencies anew; ARGS=--upgrade moves them to the newest versions.
	@scripts/lock.sh $(ARGS)

clean: ## Remove everything that was made here: .venv, data, logs, caches.
	@rm -rf .venv .baton .make .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/node/node_modules \
	    examples/worker-node/node_modules
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

venv:
	@scripts/setup.sh run

venv-dev:
	@scripts/setup.sh dev

test-tools: venv-dev
	@.venv/bin/python scripts/test_tools.py
