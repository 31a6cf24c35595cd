# `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash -o pipefail

BIN     := bin/wxidp
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X main.buildVersion=$(VERSION)
FUZZTIME ?= 30s

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/wxidp
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/wxidp

.PHONY: run
run: build ## try it: server, WeChat simulator, ready configuration; prints commands that sign in
	@$(BIN) dev

.PHONY: test
test: check test-go test-postgres test-node test-browser test-sdk torture ## everything: check, Go tests with the race detector on both engines, end-to-end tests in Node and Chromium, the SDK, servers under faults

.PHONY: test-go
test-go: ## Go tests with the race detector
	go test -race -timeout 30m ./...

# Tests of several nodes and of migrations have PostgreSQL in any case.
.PHONY: test-postgres
test-postgres: build ## the tests that come through the front door, with all servers on PostgreSQL
	@if command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then \
		TEST_STORAGE=postgres go test -race -timeout 30m -skip 'Nodes|^TestMigrate' ./cmd/wxidp && \
		if command -v npm >/dev/null; then \
			cd e2e && npm ci --no-audit --no-fund --loglevel=error && E2E_WXIDP_BIN=$(CURDIR)/$(BIN) npm run --silent test:postgres; \
		fi; \
	elif [ "$$CI" = true ]; then echo "FAIL: PostgreSQL is missing, the servers cannot be tested on it"; exit 1; \
	else echo "SKIPPED: PostgreSQL is missing, the servers were not tested on it"; fi

.PHONY: test-node
test-node: build ## end-to-end tests with openid-client and jose
	@if command -v npm >/dev/null; then \
		cd e2e && npm ci --no-audit --no-fund --loglevel=error && E2E_WXIDP_BIN=$(CURDIR)/$(BIN) npm test; \
	elif [ "$$CI" = true ]; then echo "FAIL: npm is missing, the Node end-to-end tests cannot run"; exit 1; \
	else echo "SKIPPED: npm is missing, the Node end-to-end tests did not run"; fi

.PHONY: test-browser
test-browser: build ## the pages in Chromium, or the browser that CHROME names; screenshots in e2e/screenshots
	@if command -v npm >/dev/null; then \
		cd e2e && npm ci --no-audit --no-fund --loglevel=error && E2E_WXIDP_BIN=$(CURDIR)/$(BIN) npm run --silent test:browser; \
	elif [ "$$CI" = true ]; then echo "FAIL: npm is missing, the browser tests cannot run"; exit 1; \
	else echo "SKIPPED: npm is missing, the browser tests did not run"; fi

.PHONY: test-sdk
test-sdk: build ## the mini-program SDK, also against the real server and with WeChat's own tool
	@if command -v npm >/dev/null; then \
		cd sdk/miniprogram && npm ci --loglevel=error && npm ci --prefix pack --loglevel=error && E2E_WXIDP_BIN=$(CURDIR)/$(BIN) npm test; \
	elif [ "$$CI" = true ]; then echo "FAIL: npm is missing, the SDK's tests cannot run"; exit 1; \
	else echo "SKIPPED: npm is missing, the SDK's tests did not run"; fi

.PHONY: check
check: ## format, vet, staticcheck, import rules, go.mod, known vulnerabilities
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not gofmt-clean:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	go test -run TestImports .
	go mod tidy -diff
	@out=$$(mktemp); go tool govulncheck ./... >$$out 2>&1; status=$$?; \
	if [ $$status -eq 0 ]; then tail -n 1 $$out; rm -f $$out; \
	elif [ $$status -eq 3 ]; then cat $$out; rm -f $$out; exit 1; \
	elif grep -qE 'dial tcp|no such host|Forbidden|Unavailable|timeout|connection|lookup|unexpected EOF' $$out; then \
		echo "SKIPPED: govulncheck cannot reach its database (GOVULNDB names another one)"; rm -f $$out; \
	else cat $$out; rm -f $$out; exit 1; fi

.PHONY: bench
bench: build ## load and ceilings on loopback, on bbolt and PostgreSQL, ten minutes
	go build -trimpath -o bin/bench ./bench
	bin/bench -wxidp $(BIN)

.PHONY: torture
torture: build ## kill, fill, cut and overload servers and check every answer; SEED=n repeats a run, ONLY=kill,reload runs some
	go build -trimpath -o bin/torture ./torture
	bin/torture -wxidp $(BIN) $(if $(SEED),-seed $(SEED)) $(if $(ONLY),-only $(ONLY))

.PHONY: torture-long
torture-long: build ## the same in the sizes of a release, which take hours
	go build -trimpath -o bin/torture ./torture
	bin/torture -wxidp $(BIN) -long $(if $(SEED),-seed $(SEED)) $(if $(ONLY),-only $(ONLY))

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s)
	@set -e; for package in $$(go list ./...); do \
		for target in $$(go test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
			echo "== $$package $$target"; go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) $$package; \
		done; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin e2e/node_modules sdk/miniprogram/{node_modules,pack/node_modules,lib,esm,miniprogram_dist} e2e/screenshots
