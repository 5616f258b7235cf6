# The front door. Meson and ninja do the work; each target installs what it lacks (scripts/need).
#
#   make          build/qumra
#   make run      boot Debian's own kernel to a shell
#   make test     all tests but the slow group (tests/run NAME... for some)
#   make test CI=1  the slow group, too; and what cannot run for want of a package has failed
#   make bench    measurements, side by side with QEMU
#   make clean

BUILD := build
MAKEFLAGS += --no-print-directory

.PHONY: all run test bench clean

all:
	@scripts/need build
	@scripts/build $(BUILD)

run: all
	@scripts/need run
	@scripts/run-debian $(BUILD)

# Not by the CI=true that many environments have.
test:
	@scripts/need build test
	@tests/run $(and $(filter command,$(origin CI)),$(filter 1,$(CI)),--ci)

bench: all
	@scripts/need run bench
	@bench/run

clean:
	rm -rf build build-asan
