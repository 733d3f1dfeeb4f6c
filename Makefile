# One way to do each thing, the same here and in CI. Needs python3 (3.11 or newer, with venv and headers), g++ and make.
#
#   make demo         set up what inference needs, then the main job on the bundled X-ray pair
#   make test         set up everything, lint, build, C++ tests, Python tests
#   make setup        everything that developing needs, in .venv; done once
#   make build        the C++ core, its tests and the backends, into x2ct/ and build/dev
#   make lint         ruff, mypy --strict, words, Markdown, import contracts, clang-format, clang-tidy
#   make format       apply ruff and clang-format
#   make wheel        dist/x2ct-*.whl
#   make test-wheel   build the wheel, install it where no compiler is and outside the checkout, use it; X2CT_WHEEL=FILE: that one
#   make test-browser  the pages that x2ct writes, looked at in headless Chromium (which apt installs where it can)
#   make test-notebook  run docs/quickstart.ipynb from top to bottom on the demo pair
#   make sanitize     the C++ tests under AddressSanitizer with UBSan, then under ThreadSanitizer
#   make fuzz         the fuzz targets of the core (Clang 16, which apt installs where it can) and of the readers
#                     (atheris, which pip installs), SECONDS=20 each; SEED=1 makes the same inputs each time
#   make coverage     which lines of csrc/ the C++ tests run, as text and in build/coverage/report.html
#   make soak         1000 runs of a small volume: memory stays flat
#   make benchmarks   all tables of benchmarks/README.md again, from the JSON in benchmarks/results
#   make gpu-carry    what a GPU machine takes along at two calls, into .gpu, and the lines to start there; SHARDS=FOLDER
#                     packs patients to train on
#   make niivue       the viewer of the server's page again, from its npm package (needs npm); the checksum must be NOTICE's
#   make docs         the documentation as a site in build/site, every link checked
#   make clean        remove what the builds made; .venv stays

PYTHON ?= python3
# Named, because a looser requirement would bring the newest build with its CUDA packages along.
TORCH ?= torch==2.13.0
JOBS ?= $(shell nproc)
# In CI a warning is an error; elsewhere a newer compiler's new warning must not stop anybody.
WERROR ?= $(if $(CI),ON,OFF)
DEMO ?= demo
SECONDS ?= 20

BIN := .venv/bin
BUILD := build/dev
RUN_STAMP := .venv/.x2ct-run
DEV_STAMP := .venv/.x2ct-dev
HEADERS := build/onnxruntime-headers/.looked
CONFIGURE = $(BIN)/cmake -S . -B $(BUILD) -G Ninja -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python \
	-DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DX2CT_INPLACE=ON -DX2CT_WERROR=$(WERROR)
WATCHED = -G Ninja -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja -DX2CT_INPLACE=OFF \
	-DX2CT_PYTHON=OFF -DX2CT_CUDA=OFF -DX2CT_OPENVINO=OFF -DX2CT_ONNXRUNTIME=OFF -DX2CT_TORCH=OFF -DX2CT_LIBRARY=OFF -DX2CT_WERROR=$(WERROR)
CPP_SOURCES = $(shell find csrc -name '*.cpp' -o -name '*.c' | sort)
# The examples are built against an installed tree, so clang-tidy does not know how; the tests compile them with -Werror.
# A backend whose runtime's headers are not here can't be looked into either.
UNTIDIED = csrc/examples/% $(if $(wildcard x2ct/lib/libx2ct_cuda.so),,csrc/tests/gpu.cpp) $(foreach backend,onnxruntime tensorrt torch,\
	$(if $(wildcard x2ct/lib/libx2ct_$(backend).so),,csrc/backends/$(backend)/%))
TIDY_SOURCES = $(filter %.cpp,$(filter-out $(UNTIDIED),$(CPP_SOURCES)))
CPP_HEADERS = $(shell find csrc -name '*.h' | sort)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# The environment's own tools go first, for cmake calls ninja and pip calls cmake.
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup demo build test ctest pytest test-notebook test-browser niivue lint lint-python lint-imports lint-cpp tidy format wheel test-wheel \
	sanitize sanitize-address sanitize-thread fuzz coverage soak docs benchmarks gpu-carry clean

help:
	@sed -n 's/^#   //p' Makefile

# ------------------------------------------------------------------------------------------------ environments

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {v[0]}.{v[1]}; name one: make PYTHON=python3.11")'
	@$(PYTHON) -c 'import ensurepip' || { echo "python3 lacks venv: install python3-venv, or make PYTHON=..."; exit 1; }
	$(PYTHON) -m venv .venv

# What inference needs and the package itself, editable; no torch.
$(RUN_STAMP): pyproject.toml setup.py | $(BIN)/python
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > .venv/build-requirements.txt
	$(BIN)/python -m pip install -qq -r .venv/build-requirements.txt
	$(CONFIGURE)
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/python -m pip install -qq --no-build-isolation --editable .
	@touch $@

# What the ONNX Runtime backend is built with, looked for once; a build without goes on without the backend.
$(HEADERS):
	@cmake/onnxruntime_headers.sh $(@D) || true
	@mkdir -p $(@D) && touch $@

# Training, export, tests and linters on top.
$(DEV_STAMP): $(RUN_STAMP) | $(HEADERS)
	$(BIN)/python -m pip install -qq '$(TORCH)'
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(BIN)/python -m pip install -qq --no-build-isolation --editable '.[train,report,serve,dev]'
	@touch $@

setup: $(DEV_STAMP)

# ------------------------------------------------------------------------------------------------ build

build: $(RUN_STAMP) $(HEADERS)
	$(CONFIGURE) -DX2CT_TESTS=ON
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS)

# The core alone, when only that is needed.
$(BUILD)/.core: $(RUN_STAMP) CMakeLists.txt $(CPP_SOURCES) $(CPP_HEADERS)
	$(CONFIGURE)
	$(BIN)/cmake --build $(BUILD) --parallel $(JOBS)
	@touch $@

wheel: $(RUN_STAMP) $(HEADERS)
	$(BIN)/python -m pip wheel -qq --no-deps --wheel-dir dist .
	@ls -l dist/*.whl

# ------------------------------------------------------------------------------------------------ demo

demo: $(RUN_STAMP) $(BUILD)/.core
	$(BIN)/python -m x2ct demo -o $(DEMO)

# ------------------------------------------------------------------------------------------------ checks

lint: lint-python lint-imports lint-cpp
	@$(MAKE) --no-print-directory --jobs=$(JOBS) tidy

lint-python: $(DEV_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/words.py
	$(BIN)/mdformat --check CONTRIBUTING.md docs
	$(BIN)/mypy

lint-imports: $(DEV_STAMP)
	$(BIN)/lint-imports

lint-cpp: $(DEV_STAMP)
	$(BIN)/clang-format --dry-run -Werror $(CPP_SOURCES) $(CPP_HEADERS)

# One mark a source, so that only what changed is looked at again.
tidy: $(TIDY_SOURCES:%=$(BUILD)/tidy/%.ok)

$(BUILD)/tidy/%.cpp.ok: %.cpp $(CPP_HEADERS) .clang-tidy $(BUILD)/compile_commands.json | $(DEV_STAMP)
	$(BIN)/clang-tidy --quiet -p $(BUILD) $<
	@mkdir -p $(@D) && touch $@

$(BUILD)/compile_commands.json: CMakeLists.txt | $(RUN_STAMP) $(HEADERS)
	$(CONFIGURE) -DX2CT_TESTS=ON

format: $(DEV_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_SOURCES) $(CPP_HEADERS)
	$(BIN)/mdformat CONTRIBUTING.md docs

test: setup lint build ctest pytest

ctest: build
	$(BIN)/ctest --test-dir $(BUILD) --output-on-failure

pytest: setup build
	$(BIN)/python -m pytest

test-wheel: setup
	$(BIN)/python -m pytest -m wheel tests/test_packaging.py

test-notebook: setup build
	$(BIN)/python -m pytest -m notebook tests/test_notebook.py

test-browser: setup
	@command -v chromium chromium-browser google-chrome > /dev/null || { apt-get update -qq; apt-get install -qq --yes --no-install-recommends chromium; } > /dev/null 2>&1 || true
	@if command -v chromium chromium-browser google-chrome > /dev/null; then $(BIN)/python -m pytest -m browser tests; \
		else echo "test-browser: NOT RUN: no Chromium here, and apt can't install one (it needs root and a mirror)"; [ "$(WITHOUT_CHROMIUM)" = skip ]; fi

niivue:
	@rm -rf build/niivue && mkdir -p build/niivue
	cd build/niivue && npm pack --silent @niivue/niivue@0.69.0 && tar xzf niivue-niivue-*.tgz
	grep -q "$$(sha256sum build/niivue/package/dist/niivue.umd.js | cut -d' ' -f1)" NOTICE
	cp build/niivue/package/dist/niivue.umd.js x2ct/serve/page/niivue.js

# ------------------------------------------------------------------------------------------------ closer looks

sanitize: sanitize-address sanitize-thread

# With networks in closed form: the runtimes are not instrumented. What a sanitizer finds ends the test.
sanitize-address sanitize-thread: sanitize-%: $(RUN_STAMP)
	$(BIN)/cmake -S . -B build/$* $(WATCHED) -DX2CT_SANITIZE=$* -DX2CT_TESTS=ON
	$(BIN)/cmake --build build/$* --parallel $(JOBS)
	ASAN_OPTIONS=allocator_may_return_null=1 TSAN_OPTIONS=halt_on_error=1:allocator_may_return_null=1 \
		UBSAN_OPTIONS=print_stacktrace=1 $(BIN)/ctest --test-dir build/$* --output-on-failure

fuzz: $(DEV_STAMP)
	JOBS=$(JOBS) csrc/fuzz/run.sh $(SECONDS) $(WATCHED)
	tests/fuzz/run.sh $(SECONDS)

coverage: $(DEV_STAMP)
	$(BIN)/cmake -S . -B build/coverage $(WATCHED) -DX2CT_COVERAGE=ON -DX2CT_TESTS=ON
	$(BIN)/cmake --build build/coverage --parallel $(JOBS)
	find build/coverage -name '*.gcda' -delete
	$(BIN)/ctest --test-dir build/coverage --output-on-failure
	$(BIN)/gcovr --root . --filter csrc/ --exclude csrc/tests/ --exclude csrc/examples/ --exclude-throw-branches \
		--object-directory build/coverage --html-details build/coverage/report.html --txt --print-summary build/coverage

soak: build
	$(BIN)/python benchmarks/soak.py

# Measures nothing: the commands that do are listed in benchmarks/README.md.
benchmarks: $(DEV_STAMP)
	$(BIN)/python benchmarks/tables.py

# GPU_PYTHON is that of the machine, for which pip takes wheels.
gpu-carry: build
	PYTHON=$(BIN)/python BUILD=$(BUILD) benchmarks/gpu/run.sh carry $(SHARDS)

docs: $(DEV_STAMP)
	@$(BIN)/python -c 'import material' 2> /dev/null || $(BIN)/python -m pip install -qq --no-build-isolation --editable '.[docs]'
	$(BIN)/python docs/site.py build/site-source
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:
	rm -rf build dist demo *.egg-info x2ct/lib x2ct/_core*.so .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
