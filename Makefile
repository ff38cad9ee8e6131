# wio: everything a newcomer runs. `make demo` and `make test` set up what they need on first use.

PYTHON ?= python3.11
PYTHON37 ?= python3.7
JOBS ?= 2
ENV := .venv
PIP := -m pip --disable-pip-version-check --quiet install

.PHONY: help demo test test-core test-judged test-browser test-shells test-corpus test-servers faults fuzz fuzz-short lint types wheel docs audit lock goldens bench clean
.DELETE_ON_ERROR:

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(ENV)/wio/done ## port a real trained checkpoint and show every step
	@WIO="$(abspath $(ENV)/wio/bin/wio)" PYTHON="$(abspath $(ENV)/wio/bin/python)" sh examples/demo.sh

PYTEST = -m pytest -n $(JOBS) --dist loadgroup
OLD_KERAS := $(ENV)/theano-keras2/done $(ENV)/theano-keras1/done

# Every test runs in one of two environments. Chosen ones (ARGS) all run in that of the judges, which lacks nothing.
ifeq ($(strip $(ARGS)),)
test: test-core test-judged ## every test: first those that need no framework, where there is none, then the judged ones
else
test: $(ENV)/test/done $(OLD_KERAS)
	$(JUDGES) $(ENV)/test/bin/python $(PYTEST) $(ARGS)
endif

test-core: $(ENV)/core/done ## the tests that need no framework, where none can be imported
	@echo "== tests without frameworks, in $(ENV)/core: what wio does, it does with none installed"
	@cd tests && ../$(ENV)/core/bin/python -c "import frameworks; frameworks.assert_none_installed()"
	$(ENV)/core/bin/python $(PYTEST) -m "not judged" $(ARGS)

test-judged: $(ENV)/test/done $(OLD_KERAS) ## the tests that real frameworks judge
	@echo "== judged tests, in $(ENV)/test: the real frameworks say whether wio is right"
	$(JUDGES) $(ENV)/test/bin/python $(PYTEST) -m judged $(ARGS)

test-browser: $(ENV)/browser/done ## the pages that wio writes, in headless Chromium, and the reader of .wio in JavaScript under Node
	@command -v node >/dev/null || { echo "node is missing: apt-get install nodejs"; exit 2; }
	node --test viewer/tests/vectors.test.js
	$(ENV)/browser/bin/python -m pytest tests/browser $(ARGS)

test-shells: $(ENV)/core/done ## completion in zsh and fish, and the man page
	$(ENV)/core/bin/python -m pytest tests/shells $(ARGS)

docs: $(ENV)/docs/done ## the documents as a site, in build/docs; a broken link fails
	@rm -rf build/docs
	$(ENV)/docs/bin/sphinx-build -q -W --keep-going -b html -c docs . build/docs

test-corpus: $(ENV)/test/done $(OLD_KERAS) ## tests on third parties' files: make test-corpus DATA=folder
	@test -d "$(DATA)" || { echo "make test-corpus DATA=folder: the folder with the third parties' files is missing"; exit 2; }
	$(JUDGES) WIO_CORPUS="$(abspath $(DATA))" $(ENV)/test/bin/python -m pytest tests/corpus $(ARGS)

test-servers: $(ENV)/servers/done ## tests against real servers and engines on loopback: nginx, S3, an OCI registry, Dask
	$(ENV)/servers/bin/python -m pytest -n $(JOBS) --dist loadfile tests/servers $(ARGS)

JUDGES = TF_CPP_MIN_LOG_LEVEL=2 WIO_THEANO2_PYTHON="$(abspath $(ENV)/theano-keras2/bin/python)" \
	WIO_THEANO1_PYTHON="$(abspath $(ENV)/theano-keras1/bin/python)" WIO_CACHE="$(abspath .cache)"

faults: $(ENV)/core/done ## kill wio before every system call that changes a file, and N times at random: make faults N=500
	$(ENV)/core/bin/python tests/faults.py --at-times $(or $(N),500) --seed $(or $(SEED),1)

# atheris beside the judges' environment, and not in it: only fuzzing needs it.
FUZZ = cd tests && PYTHONPATH="$(abspath $(ENV)/fuzz)" TF_CPP_MIN_LOG_LEVEL=3 $(abspath $(ENV)/test/bin/python) -m fuzz.run
MINUTES ?= 20

fuzz: $(ENV)/fuzz/done ## the fuzzers: make fuzz MINUTES=20 (for each reader) READERS="onnx numpy"
	$(FUZZ) --minutes $(MINUTES) --at-once $(JOBS) $(READERS)

fuzz-short: $(ENV)/fuzz/done ## the same few dozen inputs of each fuzzer, as CI runs it
	$(FUZZ) --runs 60 --at-once $(JOBS)

lint: $(ENV)/test/done ## ruff, format and rules
	$(ENV)/test/bin/ruff check .
	$(ENV)/test/bin/ruff format --check .

# adapters/ and registry/ are wio.adapters and wio.registry once installed; mypy is shown them where they will be.
types: $(ENV)/test/done ## mypy, strict
	@rm -rf .cache/types && mkdir -p .cache/types/wio && cd .cache/types/wio \
		&& ln -s ../../../wio/* . && ln -s ../../../adapters ../../../registry .
	cd .cache/types && $(abspath $(ENV)/test/bin/mypy) --config-file $(abspath pyproject.toml) -p wio

wheel: ## the built wheel alone in an empty environment: every module imports, `wio --help` runs, types hold
	PYTHON="$(PYTHON)" sh tools/check_wheel.sh

audit: $(ENV)/audit/done ## what users install with wio: by locked hashes, and by pip-audit where its database can be reached
	PYTHON="$(PYTHON)" AUDIT="$(abspath $(ENV)/audit)" sh tools/audit.sh

lock: $(ENV)/audit/done ## requirements/runtime.lock anew, from what pyproject.toml asks for
	$(ENV)/audit/bin/pip-compile --quiet --upgrade --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-emit-trusted-host --all-extras --output-file requirements/runtime.lock pyproject.toml

goldens: $(ENV)/test/done $(ENV)/theano-keras2/done $(ENV)/tensorflow1/done ## record again what the old frameworks say of the large network (Python 3.7)
	$(ENV)/test/bin/python tests/judges/record_inception_v4.py --work .cache/goldens --golden tests/goldens/inception_v4.json \
		--tensorflow $(abspath $(ENV)/test/bin/python) --keras2-tensorflow $(abspath $(ENV)/tensorflow1/bin/python) \
		--keras2-theano $(abspath $(ENV)/theano-keras2/bin/python) --keras3 $(abspath $(ENV)/test/bin/python) \
		--wio "$(abspath $(ENV)/test/bin/python) -m wio"

bench: $(ENV)/bench/done ## wio against its peers, side by side, 30 GB of a temporary folder; FAST=1: small files, a look
	@$(ENV)/bench/bin/python -m compileall -q wio adapters # as an installed package is; an editable one is not
	TF_CPP_MIN_LOG_LEVEL=3 $(ENV)/bench/bin/python bench/run.py $(if $(FAST),--fast) $(ARGS)

clean: ## remove environments, caches and demo output
	rm -rf $(ENV) .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache demo build dist *.egg-info

$(ENV)/wio/done: pyproject.toml
	@echo "setting up wio in $(ENV)/wio"
	@$(PYTHON) -m venv --clear $(ENV)/wio && $(ENV)/wio/bin/python $(PIP) -e . \
		&& $(ENV)/wio/bin/python -m compileall -q wio adapters && touch $@

$(ENV)/core/done: pyproject.toml requirements/core.txt
	@echo "setting up an environment without frameworks in $(ENV)/core"
	@$(PYTHON) -m venv --clear $(ENV)/core && $(ENV)/core/bin/python $(PIP) -r requirements/core.txt \
		&& $(ENV)/core/bin/python $(PIP) -e . && $(ENV)/core/bin/python -m compileall -q wio adapters && touch $@

$(ENV)/test/done: pyproject.toml requirements/core.txt requirements/test.txt
	@echo "setting up the test environment with TensorFlow and Keras in $(ENV)/test (minutes, once)"
	@$(PYTHON) -m venv --clear $(ENV)/test && $(ENV)/test/bin/python $(PIP) -r requirements/test.txt \
		&& $(ENV)/test/bin/python $(PIP) -e . && $(ENV)/test/bin/python -m compileall -q wio adapters && touch $@

$(ENV)/servers/done: pyproject.toml requirements/core.txt requirements/servers.txt
	@echo "setting up wio with its extras for clusters in $(ENV)/servers"
	@$(PYTHON) -m venv --clear $(ENV)/servers && $(ENV)/servers/bin/python $(PIP) -r requirements/servers.txt \
		&& $(ENV)/servers/bin/python $(PIP) -e . && touch $@

$(ENV)/audit/done: requirements/audit.txt
	@echo "setting up the tools of the audit in $(ENV)/audit"
	@$(PYTHON) -m venv --clear $(ENV)/audit && $(ENV)/audit/bin/python $(PIP) -r requirements/audit.txt && touch $@

$(ENV)/browser/done: pyproject.toml requirements/core.txt requirements/browser.txt
	@echo "setting up an environment for tests in a browser in $(ENV)/browser"
	@$(PYTHON) -m venv --clear $(ENV)/browser && $(ENV)/browser/bin/python $(PIP) -r requirements/browser.txt \
		&& $(ENV)/browser/bin/python $(PIP) -e . && touch $@

$(ENV)/fuzz/done: $(ENV)/test/done requirements/fuzz.txt
	@rm -rf $(ENV)/fuzz && $(ENV)/test/bin/python $(PIP) --no-deps --target $(ENV)/fuzz -r requirements/fuzz.txt && touch $@

$(ENV)/docs/done: pyproject.toml requirements/docs.txt
	@echo "setting up an environment for the documents in $(ENV)/docs"
	@$(PYTHON) -m venv --clear $(ENV)/docs && $(ENV)/docs/bin/python $(PIP) -r requirements/docs.txt \
		&& $(ENV)/docs/bin/python $(PIP) -e . && touch $@

$(ENV)/bench/done: pyproject.toml requirements/bench.txt
	@echo "setting up wio and its peers in $(ENV)/bench (minutes, once)"
	@$(PYTHON) -m venv --clear $(ENV)/bench && $(ENV)/bench/bin/python $(PIP) -r requirements/bench.txt \
		&& $(ENV)/bench/bin/python $(PIP) -e . && touch $@

$(ENV)/theano-keras%/done: requirements/theano.txt requirements/theano-keras%.txt
	@echo "setting up Keras $* on Theano in $(@D)"
	@$(PYTHON) -m venv --clear $(@D) && $(@D)/bin/python $(PIP) -r requirements/theano.txt \
		&& $(@D)/bin/python $(PIP) --no-deps --no-build-isolation -r requirements/theano-keras$*.txt && touch $@

$(ENV)/tensorflow1/done: requirements/tensorflow1.txt
	@$(PYTHON37) -m venv --clear $(ENV)/tensorflow1 && $(ENV)/tensorflow1/bin/python $(PIP) -U pip \
		&& $(ENV)/tensorflow1/bin/python $(PIP) -r requirements/tensorflow1.txt && touch $@
