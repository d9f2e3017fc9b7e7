# `make` alone prints what there is. A newcomer needs `make demo` and `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# Queries are checked against the committed store/.sqlx: nothing but `make queries` needs a database to build.
export SQLX_OFFLINE := true

# Passed on: make test ARGS=name_of_a_test, make bench ARGS='--runs 3'
ARGS ?=
# How long make soak goes on.
MINUTES ?= 60
# The commit that make upgrade upgrades from.
REF ?= HEAD~1

.PHONY: help setup build demo test lint deny sbom bench faults soak upgrade mutants fuzz queries clean-servers

help: ## print this
	@sed -n -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 22
	@echo '  ARGS=...            goes on to cargo test (make test) and tasker bench (make bench)'

setup: ## find or install what Tasker needs: Postgres from the system's packages, nats-server into .local/
	@scripts/setup

build: ## build the `tasker` binary: target/release/tasker
	cargo build --workspace --release --locked --bins

demo: setup build ## start a cluster on this machine, run two workflows on real files, print the results, stop
	@scripts/demo

test: setup ## run every test against real servers
	@scripts/test $(ARGS)

lint: ## format, clippy, the workspace's own rules, the compose file
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo run -q --locked -p xtask -- check
	@scripts/check-compose

deny: ## hold the dependencies to deny.toml: bans, licences, sources, and advisories if they can be reached
	@scripts/deny

sbom: ## write what the programs are made of, as CycloneDX: target/tasker.cdx.json
	cargo run -q --locked -p xtask -- sbom target/tasker.cdx.json

bench: setup build ## measure every workload and the bare pipeline; docs/benchmarks.md
	@scripts/bench $(ARGS)

faults: setup ## the fault tests at their full counts, for hours; goes on where it was broken off
	@scripts/faults $(ARGS)

mutants: setup ## switch guards of the protocol off, one at a time: a test must notice each; target/mutants.md
	@scripts/mutants $(ARGS)

soak: setup ## one cluster under load and hurt again and again for MINUTES=60, verified again and again
	@MINUTES="$(MINUTES)" scripts/soak

upgrade: setup ## upgrade a cluster under load from the commit REF=HEAD~1 to this one, and to a next one, and back
	@REF="$(REF)" scripts/upgrade

fuzz: ## fuzz what is read from outside, FUZZ_SECONDS=60 for each target; needs a nightly toolchain and cargo-fuzz
	@scripts/fuzz $(ARGS)

queries: setup ## after a change to SQL: check it against a real Postgres and write store/.sqlx
	SQLX_OFFLINE=false scripts/with-postgres cargo run -q --locked -p xtask -- prepare-queries

clean-servers: ## remove what setup downloaded: nats-server, cargo-deny
	rm -rf .local
