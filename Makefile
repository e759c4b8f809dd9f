# Two set-up commands: `make demo` shows everything the project does, `make test` checks it. Nothing needs to be installed
# before: a virtual environment is made in .venv (PYTHON=python3.12 make demo chooses the interpreter).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export TOKENIZERS_PARALLELISM = false
export HF_HUB_DISABLE_TELEMETRY = 1

# pytest's closing line is the last thing `make test` prints.
FAST := -m "not slow and not gpu and not weights"

.PHONY: help install demo smoke stages test test-min nightly lint format docs clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## .venv with the tested versions

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; set PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -f $(STAMP) || df -Pk . | awk 'NR == 2 && $$4 < 10000000 { printf "%d GB are free here; installing needs 10 GB, of which 7 stay in use: make room, or set VENV=/another/disk/venv\n", $$4 / 1000000; exit 1 }'
	@echo "installing into $(VENV) (the first time: minutes and about 7 GB)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $(STAMP)

demo: $(STAMP)  ## data, training, evaluation, report and generation with the small real model (about 15 minutes on 2 cores)
	$(BIN)/mmi data microworld --out data/microworld --size 4000 --workers 2
	@mkdir -p runs
	@echo "teaching the encoder, and the judges beside it; what the judges say follows"
	@export OMP_NUM_THREADS=1; \
	  $(BIN)/mmi data microworld --out data/microworld --size 4000 --judges >runs/demo-judges.log 2>&1 & judges=$$!; \
	  trap 'kill $$judges 2>/dev/null; exit 130' INT TERM; \
	  $(BIN)/mmi data microworld --out data/microworld --size 4000 --encoder --config configs/demo.yaml \
	    || { kill $$judges 2>/dev/null; exit 1; }; \
	  wait $$judges; status=$$?; cat runs/demo-judges.log; exit $$status
	$(BIN)/mmi fit --config configs/demo.yaml $$(test -d runs/demo/checkpoints/last && echo --ckpt_path last)
	$(BIN)/mmi evaluate --run runs/demo --checkpoint last --conditions
	$(BIN)/mmi report runs/demo
	$(BIN)/mmi generate --run runs/demo --checkpoint last --new-images 2 \
	  --text "Cleo is in the snow, on the left, and there is a large pink cross at the top right." \
	  --image data/microworld/stories/images/val-000000-0.png \
	  --text "Cleo finds a large purple triangle on the right." \
	  --image data/microworld/stories/images/val-000000-1.png
	@echo "look at: runs/demo/report.html, data/microworld/contact_sheet.png, the transcript above"

smoke: $(STAMP)  ## the whole chain on random tiny weights (under 2 minutes)
	rm -rf data/smoke-world runs/smoke
	$(BIN)/mmi data microworld --out data/smoke-world --size 40
	$(BIN)/mmi data stats data/smoke-world
	$(BIN)/mmi fit --config configs/smoke.yaml
	$(BIN)/mmi validate --run runs/smoke
	$(BIN)/mmi evaluate --run runs/smoke --config eval/microworld.yaml --paths.world=data/smoke-world \
	  --tasks vqav2,coco_caption --limit 8
	$(BIN)/mmi report runs/smoke
	$(BIN)/mmi generate --run runs/smoke --text "Cleo is in the town." \
	  --image data/smoke-world/stories/images/val-000000-0.png --new-images 2

stages: $(STAMP)  ## the eight training stages, small: trained and scored before and after (an hour or less on 2 cores)
	MMI=$(BIN)/mmi sh experiments/stages/run.sh

test: $(STAMP)  ## all tests a CPU can run in minutes
	$(BIN)/python -m pytest -q $(FAST)

test-min:  ## the same tests with the lowest allowed versions, in .venv-min
	@test -x .venv-min/bin/python || $(PYTHON) -m venv .venv-min
	.venv-min/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints-min.txt
	.venv-min/bin/python -m pytest -q $(FAST)

nightly: $(STAMP) demo  ## what is too long for every day: the demo, the overfit experiment, slow tests
	rm -rf runs/overfit_32
	sh experiments/overfit_32/run.sh
	$(BIN)/python -m pytest -q -m "not gpu and not weights"

lint: $(STAMP)  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: $(STAMP)  ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Not --quiet: what is not told is not counted, and a dead link would pass.
docs: $(STAMP)  ## the documentation as a site, in site/; stops at dead links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "open site/index.html"

clean:  ## caches and builds; keeps .venv, data and runs
	rm -rf build dist site .pytest_cache .ruff_cache .hypothesis .coverage *.egg-info
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
