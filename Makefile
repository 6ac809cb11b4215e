# Everything lives in .venv, which is made on first use; a .venv made by hand is used as it stands.
#   PYTHON=python3.12   the interpreter that makes .venv
#   ARGS="..."          passed on to the demo or to pytest

PYTHON ?= python3
ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
DEMO := $(VENV)/.qkv-demo
DEV := $(VENV)/.qkv-dev
DECLARED := pyproject.toml constraints.txt

# A file of tests stays with one process, which makes what they share once.
PYTEST := $(VENV)/bin/pytest --numprocesses logical --maxprocesses 8 --dist loadfile

NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.PHONY: help demo test check wheel
# Two installations into one environment at once would trip over each other.
.NOTPARALLEL:

help:
	@echo "make demo    train a small model in minutes, translate with it and draw what it looks at"
	@echo "make test    run all tests, on all cores"
	@echo "make check   format, lint, types and tests: the whole house"
	@echo "make wheel   build the wheel into dist/"
	@echo
	@echo "Each makes its own environment in $(VENV) first. PYTHON=... chooses the interpreter (3.11 or newer), ARGS=... is passed on."

demo: $(DEMO)
	$(VENV)/bin/qkv demo $(ARGS)

test: $(DEV)
	$(PYTEST) $(ARGS)

check: $(DEV)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/basedpyright
	$(PYTEST) $(ARGS)

wheel: $(DEV)
	$(PY) -m build --wheel --no-isolation --outdir dist

# A virtual environment holds no files of ours, so there is nothing whose age could matter: it is made only where it is missing.
$(PY):
	@command -v $(PYTHON) >/dev/null || { echo "qkv: no '$(PYTHON)' here; name an interpreter: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "qkv: needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) -V 2>&1); name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A .venv made by hand may be too old, or (made by uv, say) without pip.
define install
	@$(PY) -c '$(NEW_ENOUGH)' || { echo "qkv: needs Python 3.11 or newer, but $(VENV) holds $$($(PY) -V 2>&1); move it away and try again" >&2; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PY) -m ensurepip || { echo "qkv: no pip in $(VENV); install one, or move $(VENV) away and try again" >&2; exit 1; }
	$(PY) -m pip install -c constraints.txt -e '.[$(1)]'
	@touch $@
endef

$(DEMO): $(DECLARED) | $(PY)
	$(call install,demo)

$(DEV): $(DECLARED) | $(PY)
	$(call install,dev)
