# The two commands of the README are `make demo` and `make test`; the rest is for people who work on Pairwire.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export HF_HUB_OFFLINE ?= 1

# pytest-xdist's processes. More than there are cores only slows them down, and each that exports needs 2 GB.
WORKERS ?= 2
SPREAD  := -n $(WORKERS) --dist worksteal

.PHONY: demo test lint types unit test-next test-repeat test-chaos test-clients test-cluster test-deploy test-mesh format protos install clean

demo: $(STAMP)
	@$(BIN)/python -m pairwire.cli.demo

test: lint types unit

install: $(STAMP)

# constraints.txt pins torch: another version brings gigabytes of CUDA libraries that the CPU path never loads.
# --no-compile: Python compiles a module when it is first imported, and most of what is installed never is.
$(STAMP): pyproject.toml constraints.txt
	@echo "== installing into $(VENV) (a few minutes the first time: torch is 200 MB)"
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar on --no-compile -c constraints.txt \
	  -e '.[cpu,bulk,export,optimum,http,jwt,demo,bench,examples,dev]'
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# The import packages are mapped onto top-level folders (pyproject.toml), which mypy cannot follow: show it the same tree.
types: $(STAMP)
	@mkdir -p .types/pairwire
	@for name in batch cli client export integrations server; do ln -sfn ../../$$name .types/pairwire/$$name; done
	@ln -sfn ../../protos/pairwire/v1 .types/pairwire/v1
	@ln -sfn ../../protos/pairwire/foreign .types/pairwire/foreign
	MYPYPATH=.types $(BIN)/mypy -p pairwire -p benchmarks -p examples

unit: $(STAMP)
	$(BIN)/python -m pytest $(SPREAD)

# The exporter on the newest transformers and sentence-transformers, without optimum: the architecture matrix, or its larger
# part with MATRIX=all, and the demo's package made by both sets.
NEXT       ?= .venv-next
NEXT_STAMP := $(NEXT)/.installed
MATRIX     ?= some
test-next: $(STAMP) $(NEXT_STAMP)
	PAIRWIRE_MATRIX=$(MATRIX) PAIRWIRE_OTHER_PYTHON=$(BIN)/python $(NEXT)/bin/python -m pytest $(SPREAD) \
	  tests/export/models tests/next

$(NEXT_STAMP): pyproject.toml constraints-next.txt
	@echo "== installing transformers 5 and sentence-transformers 6 into $(NEXT)"
	$(PYTHON) -m venv $(NEXT)
	@$(NEXT)/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar on --no-compile \
	  -c constraints-next.txt -e '.[cpu,export,demo,next]'
	@touch $@

# N runs of the unit suite, one after the other; BUSY=1 keeps every core busy with something else meanwhile.
N    ?= 10
BUSY ?= 0
test-repeat: $(STAMP)
	$(BIN)/python -m tests.repeat --runs $(N) --busy $$(($(BUSY) * $$(nproc))) -- $(SPREAD)

# Clients that people have, each in an environment of its own (.clients/), against one server. NAMES="tritonclient kserve"
NAMES ?=
test-clients: $(STAMP)
	$(BIN)/python -m tests.clients $(NAMES)
	$(BIN)/python -m tests.integrations
	$(BIN)/python -m pytest --fetch tests/examples/test_clients.py

# Five minutes of harm to a server under load, and a check of the books.
SEED ?= 0
test-chaos: $(STAMP) models/demo
	$(BIN)/python -m benchmarks.chaos --seed $(SEED)

# The files below deploy/ by the schemas, linters and programs that they are for; test-mesh only what needs the real Envoy.
TOOLS := .venv-deploy
test-deploy: $(STAMP) $(TOOLS)/.installed
	TEST_TOOLS=$(TOOLS) $(BIN)/python -m pytest tests/deploy

test-mesh: $(STAMP) $(TOOLS)/.installed
	TEST_TOOLS=$(TOOLS) $(BIN)/python -m pytest tests/deploy/test_mesh.py tests/deploy/test_envoy.py

$(TOOLS)/.installed: tests/deploy/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --disable-pip-version-check --quiet -r $<
	@command -v promtool >/dev/null || (cd $(TOOLS) && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb prometheus \
	  && mv prometheus/usr/bin/promtool bin && rm -rf prometheus prometheus_*.deb) \
	  || echo "no promtool: install Prometheus to check the alert rules"
	@touch $@

# Ray and Spark, in an environment of their own: they bring half a gigabyte, and Ray pins versions of its own.
CLUSTER ?= .venv-cluster
$(CLUSTER)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(CLUSTER)
	@$(CLUSTER)/bin/python -m pip install --disable-pip-version-check --quiet --progress-bar on --no-compile -c constraints.txt \
	  -e '.[cpu,bulk,ray,spark,duckdb]'
	@touch $@

test-cluster: $(STAMP) $(CLUSTER)/.installed
	PAIRWIRE_CLUSTER_PYTHON=$(CURDIR)/$(CLUSTER)/bin/python $(BIN)/python -m pytest tests/cluster

models/demo: $(STAMP)
	@$(BIN)/python -m pairwire.cli.demo

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

protos: $(STAMP)
	$(BIN)/python -m grpc_tools.protoc -I protos \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --python_out=protos --mypy_out=quiet:protos protos/pairwire/v1/*.proto
	$(BIN)/python -m grpc_tools.protoc -I protos \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --grpc_python_out=protos --mypy_grpc_out=quiet:protos \
	  protos/pairwire/v1/scoring.proto protos/pairwire/v1/embedding.proto protos/pairwire/v1/model.proto
	$(BIN)/python -m grpc_tools.protoc -I protos --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --python_out=protos --mypy_out=quiet:protos protos/pairwire/foreign/*.proto
	sed -i -e 's/^from google.protobuf import descriptor_pool as _descriptor_pool$$/from .pool import POOL as _pool/' \
	  -e 's/_descriptor_pool\.Default()/_pool/' protos/pairwire/foreign/*_pb2.py

clean:
	rm -rf $(VENV) $(NEXT) $(TOOLS) .types build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
