# Every target works from a fresh clone on a machine with Go, Linux 5.15 or
# newer. `make help` lists them.

export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin
export GOFLAGS ?= -buildvcs=false
export CGO_ENABLED ?= 0

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
# Measuring needs root; `sudo` is left out where we are root already.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
FUZZTIME ?= 5s
# The lab's settings go through sudo too. It ends with make, however make ends.
LAB = exec $(SUDO) env "PATH=$$PATH" $(foreach v,$(filter COREPLICA_LAB_% XDG_CACHE_HOME,$(.VARIABLES)),'$v=$($v)') \
	setpriv --pdeathsig TERM -- vagrant/lab.sh

.DEFAULT_GOAL := build
.PHONY: build demo test lint bench trial lab-up lab-test lab-down trial-lab generate docs fuzz clean help

build: ## make bin/coreplica, one static binary
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/coreplica ./cmd/coreplica

demo: build ## measure what btrfs RAID1 costs in CPU, in about a minute
	@scripts/setup demo
	@$(SUDO) bin/coreplica mirrorcost run

test: ## run all checks and tests; installs what they need
	@scripts/setup test
	@scripts/test

lint: ## vet, staticcheck and the rules of the repository
	go vet ./...
	go tool staticcheck ./...
	go test -count=1 ./internal/repo

bench: ## nanoseconds per event of each probe, the load's own speed, memory near and far
	$(SUDO) env "PATH=$$PATH" go test -run '^$$' -bench . -benchmem -count=1 -p 1 ./bpf/... ./mirrorcost/load/... ./numa/...

lab-up: build ## start three virtual machines with vagrant, two memory cells each
	@scripts/setup lab
	@$(LAB) up

lab-test: ## check the machines of lab-up: doctor, mirrorcost, network, memory cells
	@$(LAB) test

lab-down: ## remove all that lab-up made, also after a kill -9
	@$(LAB) down

trial-lab: build ## all of the lab from nothing to nothing, with times (20 minutes)
	@scripts/setup lab
	@$(LAB) trial

trial: ## the long trials: A/A runs, a million spoiled machines, 10^8 simulated steps, all states, SPIN (hours)
	@scripts/setup test
	$(SUDO) env "PATH=$$PATH" COREPLICA_TRIAL=1 go test -count=1 -p 1 -timeout 8h -v -run Trial ./mirrorcost/... ./numa/... ./runq/...

generate: ## compile the BPF programs again (needs clang-14)
	@scripts/setup test
	go generate ./bpf/...

docs: build ## write the man pages into man/
	bin/coreplica docs man man

fuzz: ## run each fuzz target for FUZZTIME (5s)
	@for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz'); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package || exit 1; \
		done; \
	done

clean: ## remove what the build made
	rm -rf bin man

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
