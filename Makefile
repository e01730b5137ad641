# Two commands: `make pipeline` runs GR2 end to end, `make test` runs the tests. Both set up what they need.
SHELL := bash
.DEFAULT_GOAL := help
CONFIG ?= configs/nano-ml100k.yaml
RUN ?= nano-ml100k
ARGS ?=

.PHONY: help setup proto check format test test-clients coverage mutation bench pipeline serve lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: .setup/done configs/gr2.schema.json ## Install Node and Python dependencies, generate code

.setup/done: package-lock.json python_worker/requirements.txt proto/gr2/v1/worker.proto proto/gr2/v1/rerank.proto scripts/setup.sh scripts/proto.sh
	@bash scripts/setup.sh

# The schema that editors check recipes with.
configs/gr2.schema.json: .setup/done src/config/schema.ts $(wildcard src/config/schema/*.ts)
	@node bin/gr2.mjs config schema > $@

proto: ## Generate TypeScript and Python code from proto/
	@bash scripts/proto.sh

check: setup ## Lint, format, types, broken protos and known vulnerabilities, TypeScript and Python
	@bash scripts/check.sh

format: setup ## Rewrite files in the house style
	npx --no-install biome check --write .
	.venv/bin/ruff format --config python_worker/pyproject.toml python_worker tests/python bench

test: setup ## All tests, TypeScript and Python
	@bash scripts/test.sh

test-clients: setup ## Third-party re-rank clients against the service: writes the table of docs/clients.md
	@bash scripts/test-clients.sh

coverage: setup ## Which lines the fast tests run: make coverage [PART=typescript|python]
	@bash scripts/coverage.sh $(PART)

mutation: setup ## Mutation tests of rewards, RL, prompts and losses (minutes): make mutation [PART=...]
	@bash scripts/mutation.sh $(PART)

bench: setup ## Benchmarks: make bench NAME=pipeline
	npm run --silent bench -- $(NAME)

pipeline: setup ## GR2 end to end on MovieLens-100K: make pipeline [CONFIG=...] [RUN=...] [ARGS="--set path=value"]
	npm run --silent pipeline -- --config $(CONFIG) --run $(RUN) $(ARGS)

serve: setup ## Answer re-rank requests with a finished run: make serve [RUN=...] [ARGS="--port 0"]
	npm run --silent serve -- --run $(RUN) $(ARGS)

lock: ## Pin every Python requirement
	@bash scripts/lock.sh

clean: ## Remove what setup and runs made (data/ is kept)
	rm -rf node_modules .venv .clients .setup coverage runs src/worker/generated src/client/generated dist python_worker/gr2_worker/generated
