# Everything lives in .venv beside this file; nothing needs root or a compiler. The stamps record what is installed, so a second run installs nothing.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
MODEL  := app/models/llama/weights/SmolLM2-135M-Instruct.Q4_1.gguf
# pip shows its progress bars to people and nothing to logs
PIP    := $(BIN)/python -m pip --disable-pip-version-check $$([ -t 2 ] || echo --quiet)
# an NVIDIA driver, or its library under WSL: the card's kernels need NVRTC
NVIDIA := $(wildcard /dev/nvidiactl /usr/lib/wsl/lib/libcuda.so.1)
NVRTC  := $(if $(NVIDIA),$(VENV)/.cuda-stamp)
JOBS   := 2# processes that share the suite, and mypy
CODE   := $(wildcard ext app townhall bench)

.PHONY: help setup chat test test-all test-web test-swarm check bench clean

help:
	@echo "make setup     create $(VENV) and install Townhall with all it needs"
	@echo "make chat      set up, pull the default model and talk to Stacy (ARGS='--personality gary' passes flags)"
	@echo "make test      set up with test extras, pull the default model and run the test suite; of large sweeps a cover"
	@echo "make test-all  the same with every case of every sweep: before a release, and after changes to kernels"
	@echo "make test-web  the web page in a real Chromium, feature by feature; pictures of it go to build/screenshots"
	@echo "make test-swarm several replicas behind Ray Serve, started and killed on this machine"
	@echo "make check     ruff, mypy and the fast tests"
	@echo "make bench     print tokens per second"
	@echo "make clean     remove $(VENV) and caches; pulled weights stay"

setup: $(VENV)/.setup-stamp $(NVRTC)
	@:

# setup and downloads speak on stderr: stdout belongs to the answers
chat: setup $(MODEL)
	@exec $(BIN)/townhall chat $(ARGS)

test: $(VENV)/.test-stamp $(NVRTC) $(MODEL)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not emulated and not exhaustive" $(ARGS)

# with PoCL's optimiser, which the other two leave out (tests/conftest.py)
test-all: $(VENV)/.test-stamp $(NVRTC) $(MODEL)
	@POCL_EXTRA_BUILD_FLAGS= $(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not emulated" $(ARGS)

test-web: $(VENV)/.web-stamp
	@CHROMIUM="$$(bash tests/web/chromium.sh)" && export CHROMIUM && $(BIN)/python -m behave $(or $(ARGS),tests/web/features)

test-swarm: $(VENV)/.swarm-stamp
	@$(BIN)/python -m pytest -n 0 tests/townhall/swarm $(ARGS)

check: $(VENV)/.test-stamp
	@$(BIN)/ruff check .
	@$(BIN)/mypy -n $(JOBS) $(CODE)
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal -m "not slow and not weights and not emulated and not exhaustive" $(ARGS)

bench: setup $(MODEL)
	@$(BIN)/python -m bench $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find ext app townhall tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.created-stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make: Townhall needs Python 3.11 or newer, and '$(PYTHON)' is $$({ $(PYTHON) --version; } 2>/dev/null || echo missing);" \
	       "install one and pass it as PYTHON=python3.12" >&2; exit 2; }
	@echo "creating $(VENV) with $$($(PYTHON) --version 2>&1)" >&2
	@$(PYTHON) -m venv $(VENV) >&2 || { \
	  echo "make: '$(PYTHON)' cannot create virtual environments; install its venv module (Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }
	@touch $@

# clang comes as a wheel whose links are finished by the first Python that starts after its installation, hence the import at the end
$(VENV)/.setup-stamp: pyproject.toml requirements.txt | $(VENV)/.created-stamp
	@echo "installing Townhall into $(VENV) (about 200 MB the first time)" >&2
	@$(PIP) install -r requirements.txt -e . >&2
	@$(BIN)/python -c 'import tinygrad'
	@touch $@

# without it Townhall says what is missing, so that a failure here stops nothing
$(VENV)/.cuda-stamp: $(VENV)/.setup-stamp
	@echo "an NVIDIA driver is here: installing NVRTC, which compiles kernels for the card (about 95 MB)" >&2
	@$(PIP) install 'townhall[cuda]' >&2 && touch $@ || echo "make: NVRTC could not be installed; 'make setup' tries again" >&2

$(VENV)/.test-stamp: $(VENV)/.setup-stamp
	@echo "installing the test extras" >&2
	@$(PIP) install -e '.[discord,library,server,test,train,via]' >&2
	@touch $@

$(VENV)/.web-stamp: $(VENV)/.setup-stamp
	@echo "installing the web page and what its tests need" >&2
	@$(PIP) install -e '.[server,test-web]' >&2
	@touch $@

$(VENV)/.swarm-stamp: $(VENV)/.test-stamp
	@echo "installing Ray (about 200 MB)" >&2
	@$(PIP) install -e '.[swarm]' >&2
	@touch $@

$(MODEL): | $(VENV)/.setup-stamp
	@bash app/models/llama/weights/pull_llama.sh >&2
