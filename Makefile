# make demo: environment, training, evaluation, translations. make test: everything. make bench: speed beside the peers.
# All start from a fresh clone with Python 3.11+ alone.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
RUN ?= runs/dates
ENVIRONMENT = $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check bench clean

demo: $(VENV)/.installed
	@if [ -f $(RUN)/run.toml ]; then $(BIN)/pellucid resume $(RUN); else $(BIN)/pellucid train dates --out $(RUN); fi
	$(BIN)/pellucid evaluate $(RUN)
	$(BIN)/pellucid generate $(RUN) "de|3. Oktober 1990" "en|Tuesday, March 5th 2024" "ja|2024年3月5日" "21 juillet 1969"
	$(BIN)/pellucid generate $(RUN) "fr|14 juillet 1989" --align
	@echo
	@echo "What to try next:"
	@echo "  $(BIN)/pellucid generate $(RUN) \"es|1 de mayo de 2001\"      your own dates"
	@echo "  $(BIN)/pellucid trace $(RUN) \"fr|14 juillet 1989\"       every step of it, its shapes by name"
	@echo "  $(BIN)/pellucid train pairs --data your-pairs.tsv        your own pairs: two columns, source and target"
	@echo "  $(BIN)/pellucid train text --data your-text.txt          a language model on your own text"
	@echo "  $(BIN)/pellucid train --help                             every recipe"

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m "not gpu"

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src
	$(BIN)/python -m pytest -q -m "not gpu and not slow"

# make bench: every question beside the peers (PELLUCID_PEERS, NANOGPT, PELLUCID_DATA: see benchmarks/__main__.py), but the one that takes hours.
QUESTIONS ?= training decoding beam text memory startup scaling

bench: $(VENV)/.installed-dev
	@for name in $(QUESTIONS); do $(BIN)/python -m benchmarks $$name || exit 1; done

$(VENV)/.installed: pyproject.toml constraints.txt
	$(ENVIRONMENT) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	$(ENVIRONMENT) -e ".[dev]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
