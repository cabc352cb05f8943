# Every verb of the repository. `make` alone lists them.
PYTHON ?= python3.11
UV := var/uv/bin/uv
export UV_PYTHON_PREFERENCE := only-system
# What is tested: PART= names a part, K= pieces of names, as for pytest's -k.
CHOICE = $(if $(PART),--part "$(PART)") $(if $(K),-k "$(K)")

help: ## list the verbs
	@grep -hE '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 18
setup: ## install uv, the locked environments and a Java (idempotent)
	@$(PYTHON) -m tools.dev.setup
ready: # what the demo needs: the environments without those that only tests use
	@$(PYTHON) -m tools.dev.setup ready
demo: ready ## weights, data, training, archive, stack, one DAG run, its result
	@$(PYTHON) -m tools.local.demo
up: ready ## start TorchServe, PostgreSQL, Airflow and MLflow on loopback, and keep them alive
	@$(PYTHON) -m tools.local.stack up
status: ## what runs: state, pid, since, restarts, address, log; fails where something does not
	@$(PYTHON) -m tools.local.stack status
down: ## stop everything that `make up` started
	@$(PYTHON) -m tools.local.stack down
test: setup ## unit tests of every part, each in its own environment; PART=dags K=orphans: these
	@$(PYTHON) -m tools.dev.tests unit $(CHOICE)
fuzz: setup ## every door and a storm of faults, 500 random examples of each test; EXAMPLES=5000, PART=dags: so many, these
	@EXAMPLES="$(EXAMPLES)" $(PYTHON) -m tools.dev.tests fuzz $(CHOICE)
e2e: setup ## the demo's path end to end, on the real services; PART=system/demo K=down: these
	@$(PYTHON) -m tools.dev.tests e2e $(CHOICE)
lint: setup ## ruff, mypy, import-linter, deptry
	@$(PYTHON) -m tools.dev.lint
release-test: setup ## real trainings and releases under a batch, and what people say back; PART=system/release, K=alias: these
	@$(PYTHON) -m tools.dev.tests releases $(CHOICE)
chaos: setup ## everything that can go wrong, done to runs on a real TorchServe; PART=disks, K=scorer-killed: these
	@$(PYTHON) -m tests.system.chaos $(CHOICE)
conformance: setup ## every model API against real servers of other makers; PART=mlserver, K="order killed": these
	@$(UV) run --quiet --frozen --project pipeline_image python -m tests.system.conformance $(CHOICE)
orchestrators: setup ## one batch by every orchestrator, the same bytes from all; PART=celery, K="kfp": these
	@$(PYTHON) -m tests.system.orchestrators $(CHOICE)
monitoring-test: setup ## break the platform, and see the right alert arrive; PART=runs, K="late or killed": these
	@PYTHONPATH=monitoring $(UV) run --quiet --frozen --project monitoring python -m tests.system.faults $(CHOICE)
bench: setup ## every published figure, measured again
	@$(PYTHON) -m benchmarks.run
bench-quick: setup ## ours beside the in-process ceiling and stock TorchServe, under six minutes
	@$(PYTHON) -m benchmarks.run quick
env: ## .env for docker compose, with random secrets
	@$(PYTHON) -m tools.compose.env
images: ## build the container images; NAMES="imagebatch imagebatch-serving": these
	@$(PYTHON) -m tools.compose.images $(NAMES)
compose-test: setup ## the compose stack from nothing to a proven table, and down again; K=login: of its tests these
	@$(PYTHON) -m tests.system.compose $(if $(K),-k "$(K)")
operations-test: setup ## the compose stack's UI, kills of its pieces, the how-to pages; PART="ui pages", K=backup: these
	@$(PYTHON) -m tests.system.operations $(CHOICE)
docs: setup ## regenerate the generated pages of docs/
	@$(PYTHON) -m tools.dev.docs
.PHONY: help setup ready demo up status down test fuzz e2e release-test lint chaos conformance orchestrators monitoring-test bench bench-quick docs env images compose-test operations-test
