# Every target sets up what it needs: a fresh clone needs only python3 (3.11-3.13) and make.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
REPORT ?=
KEEP ?=
KAFKA ?=
DATASET ?=
VAR ?= var

# one BLAS/OMP thread: parallelism is ours
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
# a service of eight processes starts in seconds from compiled modules, in a minute from their sources
unexport PYTHONDONTWRITEBYTECODE

.PHONY: setup kernels demo test lint typing kafka clean help
help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort

setup: $(STAMP)  ## virtual environment from the hashed lock
$(STAMP): requirements/dev.lock requirements/bootstrap.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.lock
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements/dev.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

lint: setup  ## ruff and import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

typing: setup  ## strict mypy
	$(BIN)/mypy

kernels: setup  ## compile the kernels, once
	@$(BIN)/sub60 compile

test: kernels  ## unit, contract and integration tests
	$(BIN)/python -m pytest -q

clean:  ## remove what the targets made
	rm -rf $(VENV) $(VAR) .numba_cache

.PHONY: kafka-stop
kafka:  ## start a real single-node Apache Kafka (needs java and, once, mvn); the last line is host:port
	@$(PYTHON) tests/support/kafka/broker.py start --folder $(VAR)/kafka

kafka-stop:  ## stop it
	@$(PYTHON) tests/support/kafka/broker.py stop --folder $(VAR)/kafka

demo: kernels  ## the main job at full size: simulate, stream, count, time, compare with truth (REPORT=FILE KEEP=1 KAFKA=host:port)
	@$(BIN)/sub60 demo --folder $(VAR)/demo $(if $(REPORT),--report $(REPORT)) $(if $(KEEP),--keep) $(if $(KAFKA),--kafka $(KAFKA))

.PHONY: bench-peers
bench-peers: kernels  ## the classic tools on one frame beside our pipeline: CPU and quality (REPORT=FILE DATASET=DIR)
	@$(BIN)/sub60 bench-peers --folder $(VAR)/peers $(if $(DATASET),--dataset $(DATASET)) $(if $(REPORT),--report $(REPORT))
.PHONY: bench-choices
bench-choices: kernels  ## cost and quality of each choice of the pipeline (REPORT=FILE DATASET=FOLDER CHOICES=a,b)
	@$(BIN)/sub60 bench-choices --folder $(VAR)/choices $(if $(DATASET),--dataset $(DATASET)) $(if $(CHOICES),--choices $(CHOICES)) $(if $(REPORT),--report $(REPORT))

.PHONY: bench-quality
bench-quality: kernels  ## every figure of quality beside its bar, seeds from the commit (REPORT=FILE SEED=n DATASET=FOLDER)
	@$(BIN)/sub60 bench-quality --folder $(VAR)/quality $(if $(SEED),--seed $(SEED)) $(if $(DATASET),--dataset $(DATASET)) $(if $(REPORT),--report $(REPORT))
.PHONY: bench
bench: kernels  ## every stage at full size against its budget and beside its reference (REPORT=FILE WRITE_BUDGETS=1)
	@$(BIN)/sub60 bench --folder $(VAR)/stages $(if $(REPORT),--report $(REPORT)) $(if $(WRITE_BUDGETS),--write-budgets)
.PHONY: bench-history
bench-history: kernels  ## what follows the pixels, and loading, against the depth of the history (REPORT=FILE)
	@$(BIN)/sub60 bench-history $(if $(REPORT),--report $(REPORT))
.PHONY: bench-scale
bench-scale: kernels  ## what this machine sustains at full size, 189 detectors on measured times, the capacity model (REPORT=FILE PICTURE=FILE PARTS=full,plane)
	@$(BIN)/sub60 bench-scale --folder $(VAR)/scale $(if $(PARTS),--parts $(PARTS)) $(if $(REPORT),--report $(REPORT)) $(if $(PICTURE),--picture $(PICTURE))
.PHONY: replay-year
replay-year: kernels  ## a year of one field through the whole service, against its truth (REPORT=FILE PICTURE=FILE VISITS=n)
	@$(BIN)/sub60 replay-year --folder $(VAR)/year $(if $(VISITS),--visits $(VISITS)) $(if $(REPORT),--report $(REPORT)) $(if $(PICTURE),--picture $(PICTURE))
.PHONY: bench-hard
bench-hard: kernels  ## the pipeline on hard skies: crowded, shallow, sharp, bright star, partial, … (REPORT=FILE SKIES=a,b)
	@$(BIN)/sub60 bench-hard --folder $(VAR)/hard $(if $(SKIES),--skies $(SKIES)) $(if $(REPORT),--report $(REPORT))
.PHONY: bench-effects
bench-effects: kernels  ## what each effect of the simulated sky costs in quality: one off at a time (REPORT=FILE EFFECTS=a,b)
	@$(BIN)/sub60 bench-effects --folder $(VAR)/effects $(if $(EFFECTS),--effects $(EFFECTS)) $(if $(REPORT),--report $(REPORT))
.PHONY: train-reliability
train-reliability: kernels  ## train the model of the alerts' reliability on simulated skies (needs: pip install "sub60[train]"; REPORT=FILE)
	@$(BIN)/sub60 train-reliability --folder $(VAR)/reliability $(if $(REPORT),--report $(REPORT))
.PHONY: sbom audit-dependencies
sbom: setup  ## software bill of materials of the runtime (CycloneDX JSON, the same bytes for the same lock) in build/sbom.json
	@mkdir -p build
	@$(BIN)/python -W ignore::UserWarning -m cyclonedx_py requirements requirements/runtime.lock --pyproject pyproject.toml \
		--output-reproducible --output-format JSON --output-file build/sbom.json
	@echo "build/sbom.json: $$(grep -c '"bom-ref": "requirements-L' build/sbom.json) components"

audit-dependencies: setup  ## locked dependencies against known vulnerabilities; 1: found some, 3: the service could not be asked
	@$(BIN)/python .ci/audit_dependencies.py

WHICH ?= all
ON ?=
N ?= 1000
SEED ?=
.PHONY: faults soak
faults: kernels  ## every fault on real servers and processes, both transports (REPORT=FILE WHICH=all|short ON=redis|kafka)
	@$(BIN)/python -m pytest -q tests/faults/matrix.py --faults $(WHICH) --faults-report $(or $(REPORT),build/faults.json) $(if $(ON),--faults-on $(ON))

soak: kernels  ## nights with random faults, memory watched (N=1000 SEED=1 ON=redis|kafka REPORT=FILE)
	@$(BIN)/python -m tests.faults.soak --detector-visits $(N) --seed $(or $(SEED),1) --transport $(or $(ON),redis) --report $(or $(REPORT),build/soak.json)
.PHONY: upgrade-test
upgrade-test: kernels  ## from another commit to this one, role by role, visits going on, and back (FROM=ref ON=redis|kafka REPORT=FILE)
	@sha=$$(git rev-parse --verify --quiet "$(FROM)^{commit}") || { echo "FROM=ref: the commit to upgrade from, in this clone" >&2; exit 2; }; \
	old=$(abspath $(VAR))/upgrade/$$sha; \
	if [ ! -d $$old ]; then mkdir -p $$old.partial && git archive $$sha | tar -x -C $$old.partial && mv $$old.partial $$old; fi; \
	echo "compiling the kernels of $$sha"; \
	PYTHONPATH=$$old PYTHONSAFEPATH=1 $(abspath $(BIN))/python -m service.cli compile && \
	$(BIN)/python -m pytest -q tests/faults/matrix.py -k upgraded --upgrade-from=$$old --faults-on $(or $(ON),redis) --faults-report $(or $(REPORT),build/upgrade.json)
.PHONY: fuzz
fuzz: setup  ## broken and hostile input for everything that reads bytes from outside (MINUTES=20 SECONDS_EACH= SEED= REPORT=FILE)
	@$(BIN)/python -m tests.fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SECONDS_EACH),--seconds-each $(SECONDS_EACH)) $(if $(SEED),--seed $(SEED)) $(if $(REPORT),--report $(REPORT))
.PHONY: image-check
image-check: setup  ## lint of docker/, and as root the Dockerfile carried out in a clean root and tried, without an engine (INSTALL=1 lets apt-get install debootstrap)
	@$(BIN)/python -m tests.image $(if $(INSTALL),--install)
.PHONY: chart
chart:  ## the Helm chart: lint, render every profile, hold each object against Kubernetes' schemas (needs go, once)
	@$(PYTHON) helm/check.py --folder $(VAR)/chart
