# The only door. `make` alone prints what there is.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

NAME ?= novacore
PORT ?= 5000
CLUSTER_PATH ?= auto
NAMESPACE ?= novacore
USERS ?= 50
TIME ?= 60s

BIN := $(CURDIR)/.tools/bin
KUBECONFIG := $(CURDIR)/.tools/kubeconfig-$(NAME)
URL := http://127.0.0.1:$(PORT)
PYTHON ?= python3
UV := $(BIN)/uv
RUN := $(UV) run --frozen
CLUSTER := $(PYTHON) -m hack.cluster
DEMO := $(PYTHON) -m hack.demo
KUBECTL := $(BIN)/kubectl --kubeconfig $(KUBECONFIG)
export PATH := $(BIN):$(PATH)

##@ Run
.PHONY: up
up: ## From nothing to a chat reply: cluster, images, operator, nine services (PORT=5000 NAME=novacore CLUSTER_PATH=auto|stock|bare)
	@$(DEMO) up --name $(NAME) --port $(PORT) --path $(CLUSTER_PATH) --namespace $(NAMESPACE)

.PHONY: down
down: ## Delete the cluster and stop what `make up` started; images stay cached
	@$(CLUSTER) down --name $(NAME)

.PHONY: clean
clean: ## Free the disk: our images, build caches, .tools
	@$(CLUSTER) clean

.PHONY: chat
chat: ## Ask the platform: make chat MSG="…" (ARGS=-v shows the request id)
	@$(DEMO) chat --url $(URL) --message "$(MSG)" $(ARGS)

.PHONY: metrics-server
metrics-server: ## What services.*.autoscaling needs, into the cluster (built once where Docker cannot pull: 2 min)
	@$(CLUSTER) metrics-server --name $(NAME) --path $(CLUSTER_PATH)

.PHONY: load
load: $(UV) ## Load test against 127.0.0.1: make load USERS=50 TIME=60s (echo model and raised limits while it runs)
	@$(DEMO) deploy --name $(NAME) --namespace $(NAMESPACE) --values loadtest/values-load.yaml
	@$(RUN) python -m loadtest --users $(USERS) --time $(TIME) --url $(URL); code=$$?; \
	  $(DEMO) deploy --name $(NAME) --namespace $(NAMESPACE); exit $$code

##@ Look
.PHONY: status
status: ## Conditions, components, memory, start-up times, image sizes (ARGS="-o json")
	@$(DEMO) status --name $(NAME) --namespace $(NAMESPACE) $(ARGS)

.PHONY: logs
logs: ## One request through every service: make logs ID=… ; or one service: make logs SVC=gateway
	@if [ -n "$(ID)" ]; then $(DEMO) logs --name $(NAME) --namespace $(NAMESPACE) --id "$(ID)" $(ARGS); \
	 else $(KUBECTL) -n $(NAMESPACE) logs deploy/novacore-$(or $(SVC),gateway) --tail=200 $(ARGS); fi

.PHONY: events
events: ## What Kubernetes said lately
	@$(KUBECTL) -n $(NAMESPACE) get events --sort-by=.lastTimestamp | tail -40

.PHONY: psql
psql: ## A psql prompt in the installation's Postgres
	@$(KUBECTL) -n $(NAMESPACE) exec -it novacore-postgres-0 -- psql -U postgres novacore

.PHONY: shell
shell: ## A Python prompt inside one service: make shell SVC=memory
	@$(KUBECTL) -n $(NAMESPACE) exec -it deploy/novacore-$(or $(SVC),gateway) -- python

##@ Check
.PHONY: test
test: lint test-unit test-contract test-service test-api test-cluster ## Everything CI runs

.PHONY: lint
lint: $(UV) ## Format, lint, types, layers, drift of generated files
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports
	@$(MAKE) check-gen

.PHONY: test-unit
test-unit: $(UV) ## Unit tests, no cluster, no server, under a minute (K=quota selects)
	@$(CLUSTER) tools
	@$(RUN) pytest tests/unit -n 2 --dist worksteal $(if $(K),-k "$(K)")

.PHONY: test-contract
test-contract: $(UV) ## The committed OpenAPI files are what the services serve
	@$(RUN) pytest tests/contract $(if $(K),-k "$(K)")

.PHONY: test-service
test-service: $(UV) ## Services on a real Postgres and a real Redis, no cluster
	@$(PYTHON) -m hack.cluster stores
	@$(RUN) pytest tests/service -n 2 --dist worksteal $(if $(K),-k "$(K)")

.PHONY: test-api
test-api: $(UV) ## The operator on a real API server and etcd, pods played, no cluster (K= selects)
	@$(CLUSTER) tools
	@$(CLUSTER) tools --only control-plane
	@$(RUN) pytest tests/api $(if $(K),-k "$(K)")

.PHONY: soak-faults
soak-faults: $(UV) ## 2,000 seeded fault cases for the operator, figures under loadtest/results/ (CASES=2000 SEED=1)
	@$(CLUSTER) tools
	@$(CLUSTER) tools --only control-plane
	@$(RUN) python -m tests.api.soak --cases $(or $(CASES),2000) --seed $(or $(SEED),1)

.PHONY: soak-plan
soak-plan: $(UV) ## 10,000 random spec changes planned and applied, figures under loadtest/results/ (CASES=10000 SEED=1)
	@$(CLUSTER) tools
	@$(CLUSTER) tools --only control-plane
	@$(RUN) python -m tests.api.plansoak --cases $(or $(CASES),10000) --seed $(or $(SEED),1)

.PHONY: soak-lease
soak-lease: $(UV) ## 1,000 seeded runs of processes that compete for the Lease, figures under loadtest/results/ (RUNS=1000 SEED=1)
	@$(RUN) python -m tests.unit.operator.loop.soak_lease --runs $(or $(RUNS),1000) --seed $(or $(SEED),1)

.PHONY: soak-stripe
soak-stripe: $(UV) ## 100,000 events of Stripe through every change of keys, figures under loadtest/results/ (EVENTS=100000 SEED=1)
	@$(PYTHON) -m hack.cluster stores
	@EVENTS=$(or $(EVENTS),100000) SEED=$(or $(SEED),1) $(RUN) pytest tests/service/auth_billing/soak_stripe.py \
	  --timeout 14400 --show-capture=no

.PHONY: soak-rotation
soak-rotation: $(UV) ## 10,000 seeded key rotations among faults in virtual time, figures under loadtest/results/ (RUNS=10000 SEED=1)
	@$(RUN) python -m tests.unit.operator.rotation.soak_rotation --runs $(or $(RUNS),10000) --seed $(or $(SEED),1)

.PHONY: bench-scale
bench-scale: $(UV) ## The operator with 1,000 installations: memory, reaction, drift, writes; gated by loadtest/ranges (N=1000)
	@$(CLUSTER) tools
	@$(CLUSTER) tools --only control-plane
	@$(RUN) python -m tests.api.scale --installations $(or $(N),1000)

.PHONY: bench-verify
bench-verify: $(UV) ## What a token's verification costs beside PyJWT's decode, and a hit of the cache; gated by loadtest/ranges
	@$(RUN) python -m tests.bench.verify --tokens $(or $(TOKENS),20000)

.PHONY: bench-flood
bench-flood: $(UV) ## A verifier under 2,000 tokens of random keys a second, and what good callers feel; gated by loadtest/ranges
	@$(RUN) python -m tests.bench.flood --rounds $(or $(ROUNDS),6)

.PHONY: test-cluster
test-cluster: $(UV) ## The platform on a real cluster of its own (kept between runs; K= selects)
	@bash tests/cluster/run.sh $(if $(K),-k "$(K)")

.PHONY: fmt
fmt: $(UV) ## Format and mend what can be mended
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

##@ Make
.PHONY: gen
gen: $(UV) ## Write every generated file: CRD, chart schema, OpenAPI, reference pages
	@$(RUN) python -m hack.generate

.PHONY: check-gen
check-gen: $(UV) ## Fail if a generated file is not what its generator writes
	@$(RUN) python -m hack.generate --check

.PHONY: image
image: ## Build the images (bases and third parties too where Docker cannot pull)
	@$(CLUSTER) images

.PHONY: push
push: ## Tag and push the two product images: make push REGISTRY=registry.example.org/team
	@$(CLUSTER) push $(REGISTRY)

.PHONY: package
package: ## Package both charts of this version into charts/releases/
	@$(CLUSTER) tools
	@for chart in novacore-operator novacore; do $(BIN)/helm package charts/$$chart --destination charts/releases; done

##@ Help
.PHONY: doctor
doctor: ## Check tools, versions and disk, and say what mends each
	@$(CLUSTER) doctor

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  \033[36m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo

$(UV):
	@$(CLUSTER) tools --only uv
