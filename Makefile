# Short names for the commands of `python -m orchestrator`. `make` alone lists them.
#
#   ENVIRONMENT=staging make plan      another environment
#   API_URL=http://host:4200/api       another server than the environment's file says
#   ARGS="--only 'sub-etl-job/*'"      more options for the command

.DEFAULT_GOAL := help
SHELL := /bin/sh

PYTHON ?= python3
BIN := .venv/bin
ENVIRONMENT ?= development
ARGS ?=
RUN ?= main-etl-job/main-etl-deployment

# A home of our own under the repository: a developer's Prefect profile and database stay untouched.
export PREFECT_HOME := $(CURDIR)/.orchestrator/prefect
export DO_NOT_TRACK := 1

ON_SERVER := $(if $(API_URL),--api-url $(API_URL))
ORCHESTRATOR := $(BIN)/python -m orchestrator
COMMON := --env $(ENVIRONMENT) $(ON_SERVER) $(ARGS)

.PHONY: help install bootstrap down run-distributed discover-flows validate-flows build-deployments \
        deploy-python deploy-containers deploy-all deploy-dev deploy-staging deploy-prod clean-deployments \
        validate-deployments test-deployments check-ui build-images push-images pull-images test soak check bench docs format clean

help: ## List all targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-22s %s\n", $$1, $$2}' Makefile

# ----- the environment -----------------------------------------------------------------------------------

# Made again when the dependencies change.
.venv/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: install it, or say PYTHON=/path/to/python"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python 3.11 or newer is needed; $(PYTHON) is `$(PYTHON) --version`. Say which one: make PYTHON=python3.11 ..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (once)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

install: .venv/.installed ## Make .venv with everything that is needed
	@mkdir -p "$$PREFECT_HOME"

bootstrap: install ## From nothing to a running deployer, and the ETL run once
	@$(ORCHESTRATOR) bootstrap --run $(RUN) $(COMMON)

down: install ## Stop the server and worker that bootstrap started
	@$(ORCHESTRATOR) down

run-distributed: install ## Run the ETL on the worker (RUN=flow/deployment for another one)
	@$(ORCHESTRATOR) run $(RUN) $(COMMON)

# ----- flows and deployments -----------------------------------------------------------------------------

discover-flows: install ## Scan and list all flows
	@$(ORCHESTRATOR) discover $(ARGS)

validate-flows: install ## Check flows, prefect.yaml and environment files
	@$(ORCHESTRATOR) validate --env $(ENVIRONMENT) $(ARGS)

build-deployments: install ## Work out all deployments and show what would change
	@$(ORCHESTRATOR) plan $(COMMON)

deploy-python: install ## Deploy all deployments of kind python
	@$(ORCHESTRATOR) apply --yes --kind python $(COMMON)

deploy-containers: install ## Deploy all deployments of kind docker
	@$(ORCHESTRATOR) apply --yes --kind docker $(COMMON)

deploy-all: install ## Deploy everything that differs
	@$(ORCHESTRATOR) apply --yes $(COMMON)

deploy-dev: ## Deploy everything to development
	@$(MAKE) --no-print-directory deploy-all ENVIRONMENT=development

deploy-staging: ## Deploy everything to staging
	@$(MAKE) --no-print-directory deploy-all ENVIRONMENT=staging

deploy-prod: ## Deploy everything to production
	@$(MAKE) --no-print-directory deploy-all ENVIRONMENT=production

clean-deployments: install ## Delete all deployments of ours in the environment
	@$(ORCHESTRATOR) clean '*' --yes $(COMMON)

validate-deployments: install ## Check the deployments' configuration without the server
	@$(ORCHESTRATOR) validate --env $(ENVIRONMENT) $(ARGS)

test-deployments: install ## Plan against the server without writing
	@$(ORCHESTRATOR) plan $(COMMON)

check-ui: install ## Are the deployments on the server, in sync and ready?
	@$(ORCHESTRATOR) status $(COMMON)

# ----- images --------------------------------------------------------------------------------------------

build-images: install ## Build the images of the environment that are missing
	@$(ORCHESTRATOR) build $(COMMON)

push-images: install ## Build those that are missing, and push them to the registry
	@$(ORCHESTRATOR) push $(COMMON)

pull-images: install ## Pull the environment's images into this machine's engine
	@$(ORCHESTRATOR) pull $(COMMON)

# ----- the project itself --------------------------------------------------------------------------------

# As many at once as there are processors, four at most; what waits for servers first, what only computes fills the gaps.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

test: install ## Run all tests that this machine can run
	@$(BIN)/python -m pytest $(or $(ARGS),$(SIDE_BY_SIDE) tests/system tests/integration tests/unit)

soak: install ## Rounds of faults on a real server, 50 of applies and 50 of fan-outs (ARGS="fan-out --rounds 5 --seed 7")
	@$(BIN)/python -m tests.soak $(ARGS)

check: install ## Lint, format and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: install ## Run the benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

docs: install ## Write the pages of docs/ that are made from the code
	@$(ORCHESTRATOR) rules --output markdown > docs/rules.md

format: install ## Format the code
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean: ## Remove .venv, caches and the local state (run `make down` first)
	@test -z "`ls .orchestrator/run/*.json 2>/dev/null`" || { echo "a server or worker may run: make down first"; exit 1; }
	rm -rf .venv .orchestrator data .mypy_cache .ruff_cache .pytest_cache
