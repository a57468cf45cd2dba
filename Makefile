# SPDX-License-Identifier: GPL-2.0

# The kernel to build for: a tree of it, or a row of scripts/lib/kernels, or "running".
KDIR ?= /lib/modules/$(shell uname -r)/build
KERNEL ?=
# The kernel to test on.
TEST_KERNEL := $(or $(KERNEL),backports)

KERNELS := $(shell sed -n 's/^\([a-z0-9]\+\) .*/\1/p' scripts/lib/kernels)

VM := scripts/vm --kernel $(TEST_KERNEL)
PYTEST := env TAO_REQUIRE_MODULE=1 python3 -m pytest
WITH_AES := scripts/lib/with-python cryptography==46.0.3 --

.PHONY: module
module:
ifneq ($(KERNEL),)
	scripts/build --kernel $(KERNEL)
else
	@test -e $(KDIR)/Makefile || { echo \
	"No kernel build tree at $(KDIR)."; $(say-how); exit 1; } >&2
	@test -e $(KDIR)/rust/libkernel.rmeta || { echo \
	"The tree at $(KDIR) lacks what Rust modules need; those of Debian's headers packages do."; \
	$(say-how); exit 1; } >&2
	$(MAKE) -C $(KDIR) M=$(CURDIR) MO=$(CURDIR)/build/kdir modules
	@echo "Built build/kdir/tcp_authopt.ko"
endif

define say-how
echo "One of these builds the module all the same:"; \
echo "  make KERNEL=running    for the running Debian kernel, after making a tree of its source"; \
echo "  make KERNEL=backports  for the newest of Debian 13's backports"; \
echo "  make KDIR=TREE         for a kernel tree with CONFIG_RUST in which modules_prepare has run"
endef

.PHONY: help
help:
	@echo "make demo          FRR, GoBGP and OpenBGPD in a VM, under policy: BGP, a new key, strangers"
	@echo "make test          the tests: on the host, then in a VM with the module loaded"
	@echo ""
	@echo "make               build the module for the running kernel, or for KDIR=TREE, or for a"
	@echo "                   Debian kernel: KERNEL=backports, testing, rt, amd64, running"
	@echo "make deb           the package of the module for Debian's kernel of machines, amd64, or KERNEL"
	@echo "make check         format, lint, ENDBR, and count the lines of unsafe code"
	@echo "make test-host     the protocol core only; needs no kernel (cargo test)"
	@echo "make test-vm       the tests in the VM only; TESTS=... for pytest"
	@echo "make test-tools    that scripts/vm notices what goes wrong in it"
	@echo "make test-all      make test, and what takes longer:"
	@echo "make test-native   the kernel's own TCP-AO selftests, without and with the module"
	@echo "make test-race     policies that change while connections begin, for a minute"
	@echo "make test-loads    loading and unloading, each hook refused, 50 times under traffic"
	@echo "make test-kernels  handshakes on every other kernel of scripts/lib/kernels"
	@echo "make test-secrets  that no key is left in memory after its end"
	@echo "make test-detached that a connection stays shut where a hook is not reached"
	@echo "make test-deb      the package, installed on a Debian machine as the README says, and booted"
	@echo "make test-daemons  FRR, GoBGP, OpenBGPD and BIRD under policy, each in every role"
	@echo "make test-mutants  that each sabotage of the module is noticed by a test"
	@echo "make rfc           what the RFCs require, and where it is met, tested, and seen to be tested"
	@echo "make test-debug    the tests in the VM on a kernel with KASAN, lockdep and the like, and"
	@echo "                   with allocations that fail; builds it first, in a quarter of an hour"
	@echo "make test-hostile  two million random socket options: half an hour"
	@echo "make prepare       all kernels, side by side; each target does so for what it needs"
	@echo "make clean         remove what was built here (not the cache: see scripts/prepare --help)"
	@echo ""
	@echo "scripts/vm -- COMMAND boots the kernel with the module loaded and runs COMMAND there."

.PHONY: test
test: test-host test-vm

.PHONY: test-host
test-host:
	cargo test --quiet

# All tests, unless TESTS says which.
TESTS :=
.PHONY: test-vm
test-vm:
	scripts/build --kernel $(TEST_KERNEL) --source tests/modules
	scripts/test-vm --kernel $(TEST_KERNEL) -- $(TESTS)

# The same on a kernel that looks for what tests do not see, and in which allocations can be made to
# fail, also while the module is loaded, which then says so. It is an order of magnitude slower.
.PHONY: test-debug
test-debug:
	scripts/build --kernel debug --source tests/modules
	SLOWDOWN=10 scripts/test-vm --kernel debug --mem 4G --timeout 7200 \
		--allow-pattern 'tcp_authopt: cannot hook \w+: [a-z ]+ \(-ENOMEM\)' -- $(TESTS)

# Two million random calls, where test-vm makes some thousands: half an hour.
HOSTILE_CALLS := 2000000
.PHONY: test-hostile
test-hostile:
	$(VM) --timeout 10800 --share . -- env SLOWDOWN=120 TAO_HOSTILE_CALLS=$(HOSTILE_CALLS) \
		$(PYTEST) tests/vm/test_hostile.py -rP

# What takes too long to be run for every change. .ci/run runs all but the last two, too, which a
# machine of another speed has not run yet.
.PHONY: test-all test-more
test-all: test test-more test-deb test-daemons
test-more: test-native test-race test-loads test-kernels test-secrets test-detached

.PHONY: test-native
test-native:
	scripts/native-selftests --kernel $(TEST_KERNEL)

.PHONY: test-race
test-race:
	$(VM) --share . -- env TAO_RACE_SECONDS=60 $(PYTEST) tests/vm/test_policy_race.py -v

.PHONY: test-loads
test-loads:
	scripts/build --kernel $(TEST_KERNEL) --source tests/modules
	$(VM) --allow-from tests/vm/provoked-log --share . -- \
		env LOADS=50 TAO_EVERY_FUNCTION=1 SLOWDOWN=3 \
		$(PYTEST) tests/vm/test_load.py tests/vm/test_unload.py

# A build without a warning, and every pairing, family and algorithm; and what may not sleep, where
# locks and the allocator do.
.PHONY: test-kernels $(KERNELS:%=test-kernel-%)
test-kernels: $(patsubst %,test-kernel-%,$(filter-out $(TEST_KERNEL),$(KERNELS)))
$(KERNELS:%=test-kernel-%): test-kernel-%:
	scripts/build --kernel $* KCFLAGS=-Werror KRUSTFLAGS=-Dwarnings
	scripts/vm --kernel $* --share . -- $(PYTEST) tests/vm/test_matrix.py \
		$(if $(filter rt,$*),tests/vm/test_tracers.py)

.PHONY: prepare $(KERNELS:%=prepare-%)
prepare:
	$(MAKE) -j$(words $(KERNELS)) $(KERNELS:%=prepare-%)
$(KERNELS:%=prepare-%): prepare-%:
	scripts/prepare --kernel $*

.PHONY: test-tools
test-tools:
	scripts/vm-selftest --kernel $(TEST_KERNEL)

# The kernel's memory is judged with a second implementation of AES-CMAC.
.PHONY: test-secrets
test-secrets:
	$(WITH_AES) tests/secrets/check --kernel $(TEST_KERNEL)

# One build for each hook that holds back what is not right.
.PHONY: test-detached
test-detached:
	scripts/detached --kernel $(TEST_KERNEL)

.PHONY: deb test-deb
deb:
	scripts/deb --kernel $(or $(KERNEL),amd64)
test-deb:
	$(WITH_AES) tests/deb/check --kernel $(or $(KERNEL),amd64)

# Every role of each daemon, link-local peers and VRFs, where test-vm has a session of each; and what
# happens to daemons.
.PHONY: test-daemons
test-daemons:
	$(VM) --timeout 3600 --share . -- env TAO_DAEMONS=all SLOWDOWN=3 $(PYTEST) -rP \
		tests/vm/test_daemons.py tests/vm/test_daemon_trials.py

# The lines of tests/mutants.toml, or those with WORDS in their name.
.PHONY: test-mutants
test-mutants:
	$(WITH_AES) scripts/mutants --kernel $(TEST_KERNEL) $(WORDS)

.PHONY: rfc
rfc:
	scripts/rfc

.PHONY: demo
demo:
	$(VM) --share . -- demo/routers

.PHONY: check
check:
	scripts/check --kernel $(TEST_KERNEL)

.PHONY: clean
clean:
	rm -rf build tests/modules/build target
