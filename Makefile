# Two commands for a fresh machine: `make demo` and `make test`. All others are for people who work on MediScan.
PYTHON ?= python3
VENV ?= .venv
OUTPUT ?= demo-output
DATA ?= ../shared/data/studies.csv
MEDMNIST ?= ../shared/data/arrays/pneumoniamnist.npz
RECIPE := Resources/Recipes/mediscan-general.yaml
MARKS ?= --boxes $(dir $(DATA))boxes.csv --lesions $(dir $(DATA))lesions.csv
RUNS ?= build/runs
BIN := $(VENV)/bin
CONSTRAINTS := .ci/constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: demo test lint pictures bench bench-medmnist model lock clean

demo: $(VENV)/installed-base
	$(BIN)/mediscan demo --output $(OUTPUT)

test: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Pictures of the panel and of the slice views in the documents; those of real studies stay in Testing/output.
pictures: $(VENV)/installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quiet Testing/panel Testing/scene Testing/web -k "picture or pictures or styles"
	cp Testing/output/docs/*.png Resources/Screenshots/

bench: $(VENV)/installed-test
	mkdir -p Testing/output
	$(BIN)/python Testing/benchmarks/bench_activation.py --output Testing/output/benchmark.md
	$(BIN)/python Testing/benchmarks/bench_training.py --output Testing/output/benchmark-training.md
	$(BIN)/python Testing/benchmarks/bench_what_if.py --output Testing/output/benchmark-what-if.md
	$(BIN)/python Testing/benchmarks/bench_trust.py --output Testing/output/benchmark-trust.md
	$(BIN)/python Testing/benchmarks/bench_explanations.py --output Testing/output/benchmark-explanations.md
	$(BIN)/python Testing/benchmarks/bench_load.py --output Testing/output/benchmark-load.md
	$(BIN)/python Testing/benchmarks/bench_pacs.py --output Testing/output/benchmark-pacs.md

bench-medmnist: $(VENV)/installed-test
	rm -rf Testing/output/medmnist
	$(BIN)/python Testing/benchmarks/bench_medmnist.py --data $(MEDMNIST) --output Testing/output/medmnist

model: $(VENV)/installed-test
	$(BIN)/mediscan evaluate --data $(DATA) --folds 5 --config $(RECIPE) --output $(RUNS)/folds --cache $(RUNS)/cache \
		$(MARKS)
	$(BIN)/python -m MediScanLib.training.shipping --data $(DATA) --config $(RECIPE) --run $(RUNS)/shipped $(MARKS) \
		--cross-validation $(RUNS)/folds/metrics.json --output Resources/Models

# Pins for every supported Python and system; uv resolves them, pip installs them.
lock: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet uv
	echo "torch==2.13.0" | $(BIN)/uv pip compile --quiet --universal --python-version 3.10 --all-extras --upgrade \
		--no-header --no-annotate --constraint - --output-file $(CONSTRAINTS) pyproject.toml

clean:
	rm -rf $(VENV) build dist *.egg-info demo-output Testing/output

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-base: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-test: $(VENV)/bin/python pyproject.toml $(CONSTRAINTS)
	$(INSTALL) --editable ".[test]"
	touch $@ $(VENV)/installed-base
