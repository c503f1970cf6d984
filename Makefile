# Each target works from a bare checkout: it makes .venv from pinned versions, then does its work.
# PY chooses the Python (3.11 or newer); OUT where the demo writes.
PY ?= python3
OUT ?= runs/demo-atmosphere
BIN := .venv/bin
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)

.PHONY: demo test check bench fuzz docs clean

demo: .venv/.done
	$(BIN)/s2kd demo --out $(OUT)

test: .venv/.done
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

check: .venv/.done
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/lint-imports
	$(BIN)/python tools/check_source.py

bench: .venv/.done
	failed=; for script in benchmarks/bench_*.py; do $(BIN)/python $$script || failed="$$failed $$script"; done; \
	  $(BIN)/python benchmarks/page.py; test -z "$$failed" || { echo "missed a target:$$failed"; exit 1; }

fuzz: .venv/.done
	$(BIN)/python tools/fuzz.py

docs: .venv/.done
	$(BIN)/python docs/generate.py

.venv/.done: pyproject.toml constraints.txt
	@echo "Setting up .venv (a minute or so, once)"
	@$(PY) -c 'import sys; sys.exit("s2kd needs Python 3.11 or newer, this is %d.%d; say make PY=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PY) -m venv .venv
	$(BIN)/python -m pip install -q "uv>=0.5" && $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[all,dev]' \
	  || $(BIN)/python -m pip install --no-compile -c constraints.txt -e '.[all,dev]'
	@touch $@

clean:
	rm -rf .venv runs
