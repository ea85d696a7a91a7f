# Two commands matter: `make demo` shows tilth at work, `make test` proves it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test slow quality format papers clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $(INSTALLED)

demo: $(INSTALLED)  ## the main job: seed instructions -> data -> tuned model -> evidence
	$(BIN)/tilth run recipes/quickstart.yaml

test: $(INSTALLED)  ## the default tests, under ten minutes on two cores
	$(BIN)/python -m pytest

slow: $(INSTALLED)  ## the tests that take minutes each
	$(BIN)/python -m pytest -m slow

quality: $(INSTALLED)  ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

papers: $(INSTALLED)  ## docs/papers.md, docs/papers/ and their figures, from the committed results
	$(BIN)/tilth replicate --papers docs/papers.md

clean:
	rm -rf $(VENV) build dist src/*.egg-info
