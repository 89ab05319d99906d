# `make demo` runs the main job, `make test` passes the tests; both set everything up themselves. See README.md.
VENV := .venv
PY := $(VENV)/bin/python
BASE_PYTHON ?= python3
OUT ?= reports/runs

.PHONY: help demo test check setup regression soak bench clean uninstall
.DEFAULT_GOAL := help

help:
	@echo 'make demo    crash the active node of a real three-node cluster and measure the failover'
	@echo 'make check   lint, types and unit tests (no Docker, under a minute)'
	@echo 'make test    check, then the tests on real parts: side by side those that can be, then those that measure'
	@echo 'make regression  every scenario of the catalogue'
	@echo 'make soak    what takes longer: 100 planted blackouts, ten runs in a row, kill -9 ten times'
	@echo 'make bench   the figures of reports/bench/latest.json'
	@echo 'make setup   what the others do first: packages, virtual environment, engine, images'
	@echo 'make clean   remove every container, network, device, mount and process of ours'
	@echo 'make uninstall  clean, and how to remove the rest'

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'setup: Python 3.11 or newer is needed: set BASE_PYTHON=python3.11 or newer' >&2; exit 2; }
	@$(BASE_PYTHON) -m venv $(VENV) 2>/dev/null || { \
	  command -v apt-get >/dev/null && { apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv; } >/dev/null 2>&1; \
	  $(BASE_PYTHON) -m venv $(VENV) || { echo 'setup: python3-venv is missing: install it and run this again' >&2; exit 2; }; }
	@echo 'setup: installing Python packages into $(VENV)'
	@$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' 2>&1 | grep -v '^WARNING: Location' || true
	@$(PY) -c 'import harness, boto3, moto, docker, mfusepy, pytest, xdist' && touch $@

setup: $(VENV)/.ready
	@scripts/setup-host
	@$(PY) -m harness.images

check: $(VENV)/.ready
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@types=$$(mktemp); trap 'rm -f "$$types"' EXIT; trap 'kill $$!; exit 130' INT TERM; \
	  $(PY) -m mypy >"$$types" 2>&1 & \
	  $(PY) -m pytest tests/unit -q -x; tested=$$?; \
	  wait $$!; typed=$$?; cat "$$types"; exit $$((tested ? tested : typed))

demo: setup
	@$(VENV)/bin/pbx-chaos run active-node-crash --policy tuned --seed 7 --out $(OUT)

test: setup check
	@$(PY) -m harness.images --localstack --client
	@$(PY) -m tests.contract -m 'not soak' -q -x
	@$(PY) -m pytest tests/integration -m 'not soak and not alone' -q -x -n 2 --dist loadfile
	@$(PY) -m pytest scenarios tests/ground_truth tests/integration -q -x --durations=10 \
	  -m 'alone and not soak and (smoke or not regression)'

regression: setup
	@$(PY) -m harness.images --client
	@$(PY) -m pytest scenarios/regression -q --timeout 600

soak: setup
	@$(PY) -m pytest tests/integration scenarios -m soak -q --timeout 3600

bench: setup
	@$(PY) -m benchmarks

clean:
	@if [ -x $(VENV)/bin/pbx-chaos ]; then $(VENV)/bin/pbx-chaos clean; else echo 'nothing to clean: not set up'; fi

uninstall: clean
	@echo 'left on this host, remove them yourself if nothing else needs them:'
	@echo '  images    docker rmi $$(docker images -q "pbx-chaos-*") debian:bookworm-slim'
	@echo '  engine    kill $$(cat /var/lib/pbx-chaos/dockerd.pid)   (if `make setup` started it)'
	@echo '  packages  apt-get remove docker.io iptables mmdebstrap fuse3'
	@echo '  files     rm -rf .venv reports/runs /var/lib/pbx-chaos'
