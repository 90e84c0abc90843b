# make demo   install, draw a synthetic farm, train on it, predict, compare with baselines
# make test   format, lint, types, import contracts, all tests but those on real photos
# make check  the same with the fast tests only
# make soak   long fault campaigns in full (the tests run 2 % of the same code)
# make clean  remove what these made; `make distclean` removes the virtual environment too

PYTHON ?= python3
VENV ?= .venv
# cpu, gpu, or nothing where an ONNX Runtime is there already (Jetson): make demo RUNTIME=
RUNTIME ?= cpu
DEMO_MINUTES ?= 5
TEST_WORKERS ?= 2

PY := $(VENV)/bin/python
PIP := $(PY) -m pip -qq --disable-pip-version-check
WEEDSEG := $(VENV)/bin/weedseg
comma := ,
EXTRAS := $(if $(RUNTIME),$(RUNTIME)$(comma))train,serve,client,maps
PYTEST := $(PY) -m pytest -n $(TEST_WORKERS) --dist loadfile

# make model  train and write the released model again (about an hour on two cores)
.PHONY: demo model test check lint soak clean distclean

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "weedseg: $$($(PYTHON) -V 2>&1); expected Python 3.10 or newer; run: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(PY)
	@echo "installing weedseg[$(EXTRAS)] into $(VENV): minutes the first time"
	$(PIP) install --editable '.[$(EXTRAS)]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(PY)
	@echo "installing weedseg[$(EXTRAS),dev] into $(VENV): minutes the first time"
	$(PIP) install --editable '.[$(EXTRAS),dev]'
	@touch $(VENV)/.installed $@

demo: $(VENV)/.installed
	rm -rf demo
	$(WEEDSEG) synth --out demo/farm
	$(WEEDSEG) train --farm-images demo/farm --out demo/run --minutes $(DEMO_MINUTES)
	$(WEEDSEG) predict --model demo/run/model.onnx demo/farm/field-1/2024-05-20/images --out demo/predictions
	$(WEEDSEG) evaluate demo/run

FIELD_DATA ?= ../shared/field_data
PEANUT := Peanut dataset, peanut crop and weeds, hand-held photos, Vietnam; CC BY-SA 4.0; Tran and Phan, IEEE Access 11 (2023) 82640
FAILURES := broad-leaved weed seedlings taken for crop; thin grass blades missed; specks of false weed along the photo's border.
SYNTHETIC := Synthetic photos drawn by weedseg synth; no licence needed

# the released model: train on peanut and synthetic photos, then write card and checksums
model: $(VENV)/.installed
	rm -rf runs/model && mkdir -p runs
	$(PY) -m weedseg.bench.release_farm $(FIELD_DATA) runs/model
	$(WEEDSEG) train --farm-images runs/model/farm --out runs/model/run --init imagenet \
	  --set data.scale=0.6667 --set data.test_photos=runs/model/test.txt \
	  --set data.crop=peanut --set pretrain.steps=1600 --set finetune.steps=600
	$(WEEDSEG) export runs/model/run --format onnx-fp16,onnx-int8,onnx-int8-trt
	$(WEEDSEG) release runs/model/run --out models/peanut-lite0 --license CC-BY-SA-4.0 \
	  --license-text models/peanut-lite0/LICENSE --data "$(PEANUT)" --data "$(SYNTHETIC)" \
	  --failures "$(FAILURES)"

lint: $(VENV)/.installed-dev
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

test: lint
	$(PYTEST) -m "not real_data"

check: lint
	$(PYTEST) -m "not real_data" tests/unit tests/test_architecture.py

soak: $(VENV)/.installed-dev
	$(PY) -m pytest -m soak --soak

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

distclean: clean
	rm -rf $(VENV)
