# Each step of CI is one target, so that a green `make check` here is a green CI there.

.DEFAULT_GOAL := help
.PHONY: help demo run up down nuke logs tester compose-test schemathesis test bare-test lint fmt doc reference deny advisories check bench bench-growth commit-cost sink-cost neighbours endurance screenshot clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: ## see it work on an embedded store; ARGS=--exit ends at once
	@cargo run --release --locked --no-default-features -- demo $(ARGS)

run: ## start the service; ARGS are its flags
	@cargo run --release --locked -- serve $(ARGS)

up: ## start the whole system in containers: http://127.0.0.1:8080
	docker compose up -d --build --remove-orphans

down: ## stop the containers and remove them; the data stay
	docker compose --profile test --profile observability down --remove-orphans

nuke: ## remove the containers and all their data
	docker compose --profile test --profile observability down -v --remove-orphans

logs: ## follow the logs of the containers
	docker compose logs -f

tester: ## check the running containers from outside; ARGS=--list shows what is checked
	docker compose run --rm --build tester $(ARGS)

# In containers with names and ports of their own, which end with it. ARGS: a part of a test's name, in quotes.
compose-test: ## build the images, and test the deployment: faults between hosts, replicas, the images themselves
	integration-tests/setup build containers
	docker compose --profile test build --build-arg PROFILE=release
	cargo build --workspace --bins --tests --examples --locked
	EVENTSIEVE_BIN=target/debug/eventsieve target/debug/compose-test $(ARGS)

schemathesis: ## compare the service's answers with its OpenAPI document, by requests made from it
	integration-tests/setup schemathesis
	cargo build --workspace --bins --tests --examples --locked
	EVENTSIEVE_BIN=target/debug/eventsieve deploy/test-services.sh target/debug/schemathesis $(ARGS)

# The black-box tests start target/debug/eventsieve, which `cargo test` alone need not build. All targets, so that both
# commands agree on the features of the libraries and nothing is compiled twice. Most tests wait for servers most of the time, so there
# is one more at once than processors.
TEST_THREADS := $(shell expr $$(nproc) + 1)
test: ## run all tests, on a PostgreSQL and a Redis of their own unless DATABASE_URL and REDIS_URL name some
	integration-tests/setup test
	cargo build --workspace --bins --tests --examples --locked
	RUST_TEST_THREADS=$(TEST_THREADS) deploy/test-services.sh cargo test --workspace --locked

# Nothing else is typed in the container: the targets install what they need. Docker's limits on namespaces are lifted, because
# some tests mount a disk in a namespace of their own.
BARE_IMAGE = rust:1.95-slim-trixie
define BARE_TEST
(apt-get update && apt-get install --yes --no-install-recommends make) >/dev/null
mkdir /eventsieve && cd /eventsieve && tar --extract --no-same-owner
time make demo ARGS=--exit
time make test
time make test
endef
export BARE_TEST
bare-test: ## run `make demo` and `make test` in a container that has only Debian, Rust, a C compiler and make
	git ls-files -z | tar --create --null --files-from=- | docker run --rm --interactive --init --shm-size 1g \
	  --security-opt seccomp=unconfined --security-opt apparmor=unconfined --network host $(BARE_IMAGE) bash -euc "$$BARE_TEST"

lint: ## check the formatting, and let clippy read all code
	integration-tests/setup build lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

fmt: ## format all code
	cargo fmt --all

# Private items too: the crate documentation is the map of the code, and its links lead to them.
doc: ## build the documentation; a broken link fails
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked

reference: ## write docs/reference from the code
	UPDATE_DOCS=1 cargo test -p eventsieve --lib --locked reference::

# The licences, versions and sources of all libraries: .deny.toml. It looks at those of other systems, too, which a build
# does not fetch.
deny: ## check the licences, versions and sources of the libraries
	integration-tests/setup deny
	cargo fetch --locked
	cargo deny --locked --offline check bans licenses sources

# Not part of `check`: it fetches the list of known vulnerabilities, so its result can change while this repository does not.
advisories: ## check the libraries against the list of known vulnerabilities
	integration-tests/setup deny
	cargo deny --locked check advisories

CONTAINERS = $(if $(filter 1,$(WITHOUT_CONTAINERS)),,containers)

# In this order: make stops at the first that fails, and cargo's summary of the tests comes last.
check: ## all that CI runs: lint, deny, doc, compose-test, schemathesis, test; WITHOUT_CONTAINERS=1 leaves out compose-test
	integration-tests/setup lint deny schemathesis test $(CONTAINERS)
	$(MAKE) --no-print-directory lint
	$(MAKE) --no-print-directory deny
	$(MAKE) --no-print-directory doc
ifneq ($(WITHOUT_CONTAINERS),1)
	$(MAKE) --no-print-directory compose-test
endif
	$(MAKE) --no-print-directory schemathesis
	$(MAKE) --no-print-directory test

# On a machine that does nothing else. ROUNDS, SCALE and SIDES: integration-tests/src/bin/tools/main.rs.
bench: ## measure the service against the database it runs on, and an overload; some ten minutes
	integration-tests/setup build services
	cargo build --profile dist --locked --workspace
	EVENTSIEVE_BIN=target/dist/eventsieve deploy/test-services.sh target/dist/tools contest

bench-growth: ## measure it again after 1, 5 and 20 million events; some twenty minutes, and 40 GB of disk
	integration-tests/setup build services
	cargo build --profile dist --locked --workspace
	EVENTSIEVE_BIN=target/dist/eventsieve deploy/test-services.sh target/dist/tools growth

commit-cost: ## measure the cost of a group commit
	integration-tests/setup build services
	cargo build --profile dist --locked --workspace
	EVENTSIEVE_BIN=target/dist/eventsieve deploy/test-services.sh target/dist/tools commit-cost

sink-cost: ## measure the cost of publishing to Redis and to stream subscribers
	integration-tests/setup build services
	cargo build --profile dist --locked --workspace
	EVENTSIEVE_BIN=target/dist/eventsieve deploy/test-services.sh target/dist/tools sink-cost

neighbours: ## measure a client that behaves beside six attacks, as root, in a control group of 512 MB; two minutes
	integration-tests/setup build services
	cargo build --profile dist --locked --workspace
	EVENTSIEVE_BIN=target/dist/eventsieve deploy/test-services.sh target/dist/tools neighbours

endurance: ## mixed load at the edge of memory, as root, in a control group of 256 MB; MINUTES (60) on each store
	integration-tests/setup build services
	cargo build --profile dist --locked --workspace
	EVENTSIEVE_BIN=target/dist/eventsieve deploy/test-services.sh target/dist/tools endurance

screenshot: ## make .github/dashboard.png: the dashboard of a service under load, in Chromium
	integration-tests/setup test
	cargo build --workspace --bins --tests --examples --locked
	EVENTSIEVE_BIN=target/debug/eventsieve deploy/test-services.sh target/debug/tools screenshot .github/dashboard.png

clean: ## remove all that was built
	cargo clean
