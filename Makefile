# The tasks of this repository. `make` alone lists it.
#
# A Rust toolchain is needed; on Debian and Ubuntu the rest is installed when it is missing.

CARGO ?= cargo
# Tests mostly wait (for a server, a lease, a simulated provider): two for each processor keep all of them busy.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(getconf _NPROCESSORS_ONLN))))

.DEFAULT_GOAL := help
.PHONY: help demo config test test-pooler chaos acceptance lint bench bench-quota bench-trouble bench-reports \
	bench-pages compare fuzz sqlx sqlx-check postgres python chromium servers build deb test-package clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: postgres ## see everything at once, on a private Postgres and the provider simulator
	$(CARGO) run --profile demo --no-default-features --locked -- demo

test: servers python chromium ## all tests; they start a Postgres and a PgBouncer of their own
	$(CARGO) test --locked --no-fail-fast --lib --tests

test-pooler: servers python chromium ## the tests against Postgres once more, with a PgBouncer between
	SLUICE_TEST_BEHIND_PGBOUNCER=1 $(CARGO) test --locked --test main

chaos: postgres ## everything fails at once, and the books are right (5 minutes; SLUICE_CHAOS_SEED, _SECONDS, _WORKERS)
	$(CARGO) test --locked --test main chaos::the_books_are_right_after_minutes_of_chaos -- --ignored --nocapture

acceptance: postgres ## 20,000 jobs over seven rungs with every fault, and the same without fallback (ten minutes)
	$(CARGO) test --locked --test main acceptance::acceptance_and_waste -- --ignored --nocapture

lint: ## formatting, lints, licences, the systemd units
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@if $(CARGO) deny --version > /dev/null 2>&1; then \
		$(CARGO) deny --locked check bans licenses sources; \
	else \
		echo "cargo-deny is not installed (cargo install cargo-deny --locked): licences are not checked"; \
	fi
	systemd/check

bench: postgres ## how fast the queue is, with the release build
	$(CARGO) bench --locked --bench throughput

bench-quota: postgres ## how well providers' limits are kept and used, with the release build (ten minutes)
	$(CARGO) bench --locked --bench quota

bench-trouble: postgres ## a held snapshot, an outage, a million lanes, while a million jobs flow (half an hour)
	$(CARGO) bench --locked --bench trouble

bench-reports: postgres ## reports over ten million attempts, with the release build (a quarter of an hour, 5 GB)
	$(CARGO) bench --locked --bench reports

bench-pages: postgres ## pages over ten million attempts and a million open jobs, with the release build (9 GB)
	$(CARGO) bench --locked --bench pages

compare: postgres build ## the same work with four peers from the Python registry (15 minutes; docs/comparison.md)
	python3 -B benches/compare/compare.py

fuzz: ## feed arbitrary bytes to every reader of foreign input; SECONDS_EACH=20
	scripts/fuzz $(or $(SECONDS_EACH),20)

sqlx: ## refresh .sqlx after a change to a statement or a migration
	scripts/sqlx

sqlx-check: ## fail when .sqlx is out of date
	scripts/sqlx --check

config: ## write what follows from the sources: keys of the configuration, the list of files
	@# Into new files first: an old one is part of the program that writes it.
	$(CARGO) build --locked --quiet --bin sluice
	@$(CARGO) run --locked --quiet -- config sample > config/sluice.toml.new
	@$(CARGO) run --locked --quiet -- config schema > config/sluice.schema.json.new
	@$(CARGO) run --locked --quiet -- config keys > docs/configuration-keys.md.new
	@$(CARGO) run --locked --quiet -- config openapi > docs/openapi.json.new
	@for file in config/sluice.toml config/sluice.schema.json docs/configuration-keys.md docs/openapi.json; do \
		mv $$file.new $$file; done
	@SLUICE_WRITE_CONFORMANCE=1 $(CARGO) test --locked --quiet --lib conformance > /dev/null
	@SLUICE_WRITE_LIST_OF_FILES=1 $(CARGO) test --locked --quiet --test main architecture::files > /dev/null

build: ## the release binary
	$(CARGO) build --release --locked

deb: ## the Debian package (docs/install.md)
	scripts/deb

test-package: ## install, use, upgrade and remove the package in a Debian with systemd (root; 5 minutes)
	rm -rf target/machine/packages
	PROFILE=dev REVISION=1 OUT=target/machine/packages/old scripts/deb
	BUILD=no PROFILE=dev REVISION=2 OUT=target/machine/packages/new scripts/deb
	tests/package/install.sh target/machine/packages/old/*.deb target/machine/packages/new/*.deb

python:
	@scripts/programs python

chromium:
	@scripts/programs chromium

postgres:
	@scripts/programs postgres

servers:
	@scripts/programs postgres pgbouncer

clean: ## remove what was built
	$(CARGO) clean
