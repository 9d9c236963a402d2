# Every target sets up what it needs: system packages, a local .venv with libtorch, the build. See README.md.
PREFIX ?= /usr/local
BUILD := build

.PHONY: build test demo install docs clean setup configure
build: configure
	@cmake --build $(BUILD)
	@echo "The program is at $(BUILD)/bin/switchyard"

test: build
	@tools/setup.sh --tests
	@ctest --test-dir $(BUILD) --output-on-failure

demo: configure
	@cmake --build $(BUILD) --target switchyard_program
	@tools/demo.sh $(BUILD)/bin/switchyard

install: configure
	@cmake --build $(BUILD) --target switchyard switchyard_program
	@cmake --install $(BUILD) --prefix "$(PREFIX)"

docs: configure
	@cmake --build $(BUILD) --target switchyard_program
	@$(BUILD)/bin/switchyard catalog --markdown > .cache/page && mv .cache/page docs/catalogue.md
	@$(BUILD)/bin/switchyard catalog --models > .cache/page && mv .cache/page docs/models.md
	@$(BUILD)/bin/switchyard reference --markdown > .cache/page && mv .cache/page docs/reference.md

setup:
	@tools/setup.sh

configure: setup
	@test -f $(BUILD)/build.ninja || cmake --preset release

clean:
	rm -rf build build-debug build-asan-ubsan build-coverage build-fuzz
