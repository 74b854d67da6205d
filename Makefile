# SPDX-License-Identifier: BSD-2-Clause
#
# make [all]            libraries, examples
# make deps             install the Debian packages that the rest needs
# make demo             an NVMe disk over a socket, written and read back
# make check [T=name]   every test, or those whose name contains T
# make check-asan       the programs among them under AddressSanitizer, UBSan
# make check-tsan       those with threads under ThreadSanitizer
# make bench [B=part]   how fast it is: "name value unit", one a line
# make fuzz-X           run t/fuzz/X.c for FUZZ_SECONDS; needs clang
# make qemu-env         QEMU, a kernel and busybox for t/qemu-*.t
# make install          PREFIX, DESTDIR, LIBDIR, INCLUDEDIR, MANDIR
# make uninstall, clean, dist
#
# V=1 shows commands, WERROR=1 makes warnings errors, O=dir/ builds beside
# the tree, SAN=address,undefined instruments, J=n tests n at a time.

VERSION		= 0.1.0

PREFIX		?= /usr/local
BINDIR		?= $(PREFIX)/bin
INCLUDEDIR	?= $(PREFIX)/include
LIBDIR		?= $(PREFIX)/lib
MANDIR		?= $(PREFIX)/share/man

CC		?= cc
CXX		?= c++
AR		?= ar
PKG_CONFIG	?= pkg-config
PROVE		?= prove
CFLAGS		?= -O2 -g

# Debian packages: to build, to test, and for make qemu-env.
DEPS		= \
	binutils \
	debian-archive-keyring \
	e2fsprogs \
	g++ \
	gcc \
	libbsd-dev \
	libc6-dev \
	libjansson-dev \
	liburcu-dev \
	make \
	mandoc \
	perl \
	pkg-config

MT_PKGS		= libbsd liburcu-bp
VD_PKGS		= libbsd jansson

MT_SRCS		= \
	libmemtree/access.c \
	libmemtree/bounce.c \
	libmemtree/cache.c \
	libmemtree/children.c \
	libmemtree/coalesce.c \
	libmemtree/defer.c \
	libmemtree/device.c \
	libmemtree/dirty.c \
	libmemtree/dma.c \
	libmemtree/dump.c \
	libmemtree/dump-dot.c \
	libmemtree/dump-svg.c \
	libmemtree/extras.c \
	libmemtree/guard.c \
	libmemtree/iommu.c \
	libmemtree/iommu-notify.c \
	libmemtree/ioeventfd.c \
	libmemtree/listener.c \
	libmemtree/loop.c \
	libmemtree/pin.c \
	libmemtree/ram.c \
	libmemtree/reclaim.c \
	libmemtree/region.c \
	libmemtree/render.c \
	libmemtree/sg.c \
	libmemtree/space.c \
	libmemtree/space-access.c \
	libmemtree/topology.c \
	libmemtree/tree.c \
	libmemtree/view.c

MT_HDRS		= \
	libmemtree/cache.h \
	libmemtree/coalesce.h \
	libmemtree/defer.h \
	libmemtree/dirty.h \
	libmemtree/dma.h \
	libmemtree/dump.h \
	libmemtree/guard.h \
	libmemtree/iommu.h \
	libmemtree/ioeventfd.h \
	libmemtree/listener.h \
	libmemtree/memtree.h \
	libmemtree/region.h \
	libmemtree/sg.h \
	libmemtree/space.h \
	libmemtree/topology.h \
	libmemtree/types.h \
	libmemtree/view.h

VD_SRCS		= \
	libvfudma/client.c \
	libvfudma/client-dma.c \
	libvfudma/client-lost.c \
	libvfudma/client-maps.c \
	libvfudma/client-page.c \
	libvfudma/client-serve.c \
	libvfudma/client-tree.c \
	libvfudma/dma.c \
	libvfudma/irq.c \
	libvfudma/mappings.c \
	libvfudma/message.c \
	libvfudma/msg.c \
	libvfudma/msg-read.c \
	libvfudma/msg-wait.c \
	libvfudma/negotiate.c \
	libvfudma/notify.c \
	libvfudma/pci.c \
	libvfudma/pci-cap.c \
	libvfudma/request.c \
	libvfudma/server.c \
	libvfudma/server-cmd.c \
	libvfudma/server-region.c \
	libvfudma/sigbus.c \
	libvfudma/sock.c \
	libvfudma/stream.c \
	libvfudma/wire.c

VD_HDRS		= \
	libvfudma/client.h \
	libvfudma/client-tree.h \
	libvfudma/irq.h \
	libvfudma/mappings.h \
	libvfudma/pci.h \
	libvfudma/proto.h \
	libvfudma/request.h \
	libvfudma/server.h \
	libvfudma/sigbus.h \
	libvfudma/vfudma.h

NVME_SRCS	= $(sort $(wildcard examples/nvme/*.c))
HOST_SRCS	= $(sort $(wildcard examples/host/*.c))
DUMP_SRCS	= $(sort $(wildcard examples/dump/*.c))
EXAMPLE_SRCS	= $(sort $(wildcard examples/*.c))

# Everything in t/ is a test, but for the replayer, which is a tool.
TEST_SRCS	= $(filter-out t/replay.c,$(sort $(wildcard t/*.c)))
BENCH_SRCS	= $(sort $(wildcard t/bench/*.c))
# Each with a corpus; main.c drives them where there is no libFuzzer.
# X-*.c are parts of X.
FUZZ_SRCS	= $(filter-out t/fuzz/main.c t/fuzz/tree-%,\
	$(sort $(wildcard t/fuzz/*.c)))
FUZZ_PARTS	= $(sort $(wildcard t/fuzz/tree-*.c))
TEST_SH		= $(filter-out $(TEST_SRCS:.c=.t),$(sort $(wildcard t/*.t)))

MAN3		= $(sort $(wildcard man3/*.3))

# --- nothing to set below ------------------------------------------------

MT_WARN		= -Wall -Wextra -Wshadow -Wcast-qual -Wpointer-arith \
	-Wstrict-prototypes -Wmissing-prototypes -Wvla -Wundef -Wwrite-strings
ifdef WERROR
MT_WARN		+= -Werror
endif
ifdef SAN
MT_SAN		= -fsanitize=$(SAN) -fno-omit-frame-pointer \
	-fno-sanitize-recover=all -DMT__OUTLINE_RCU
endif
# Asked when first needed: in "make deps demo" that is after the packages came.
MT_CPPFLAGS	= $(eval MT_CPPFLAGS := -I. -D_GNU_SOURCE $$(shell \
	$(PKG_CONFIG) --cflags $(MT_PKGS) $(VD_PKGS)))$(MT_CPPFLAGS)
MT_CFLAGS	= -std=gnu11 $(MT_WARN) $(MT_SAN) -fno-common -pthread
MT_LIBS		= $(eval MT_LIBS := $$(shell \
	$(PKG_CONFIG) --libs $(MT_PKGS)) -pthread)$(MT_LIBS)
VD_LIBS		= $(eval VD_LIBS := $$(shell \
	$(PKG_CONFIG) --libs $(VD_PKGS)))$(VD_LIBS)

ifeq ($(V),1)
Q		=
say		= @:
else
Q		= @
say		= @printf '  %-7s %s\n'
endif

MT_OBJS		= $(MT_SRCS:%.c=$(O)%.o)
VD_OBJS		= $(VD_SRCS:%.c=$(O)%.o)
MT_LIB		= $(O)libmemtree.a
VD_LIB		= $(O)libvfudma.a
NVME_OBJS	= $(NVME_SRCS:%.c=$(O)%.o)
HOST_OBJS	= $(HOST_SRCS:%.c=$(O)%.o)
DUMP_OBJS	= $(DUMP_SRCS:%.c=$(O)%.o)
EXAMPLES	= $(EXAMPLE_SRCS:%.c=$(O)%) $(O)examples/nvme/nvme \
	$(O)examples/nvme-host $(O)examples/vfu-dump
TESTS		= $(TEST_SRCS:%.c=$(O)%.t)
BENCHES		= $(BENCH_SRCS:%.c=$(O)%)
FUZZERS		= $(FUZZ_SRCS:%.c=$(O)%)
REPLAY		= $(O)t/replay

# What the guest of t/qemu-linux.t runs is for a PC.
ifeq ($(shell uname -m),x86_64)
QEMU_FILES	= $(O)t/qemu/boot.bin $(O)t/qemu/guest
endif

# Of the shell tests only these run programs that a sanitizer can watch.
ifdef SAN
CHECK_SH	= $(filter t/corpus.t t/memtree-%.t t/example-%.t,$(TEST_SH))
else
CHECK_SH	= $(TEST_SH)
endif
CHECK		= $(foreach x,$(TESTS) $(CHECK_SH),\
	$(if $(or $(if $(T),,all),$(findstring $(T),$(x))),$(x)))
J		?= $(shell nproc 2>/dev/null || echo 1)

all: lib examples
lib: $(MT_LIB) $(VD_LIB)
examples: $(EXAMPLES)
tests: lib examples $(TESTS) $(BENCHES) $(FUZZERS) $(REPLAY) $(QEMU_FILES)

$(MT_LIB): $(MT_OBJS)
$(VD_LIB): $(VD_OBJS)
$(MT_LIB) $(VD_LIB):
	$(say) AR $@
	$(Q)rm -f $@ && $(AR) crs $@ $^

$(O)%.o: %.c
	$(say) CC $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(MT_CPPFLAGS) $(CPPFLAGS) $(MT_CFLAGS) $(CFLAGS) -MMD -MP \
	    -c -o $@ $<

define link
	$(say) LD $@
	$(Q)$(CC) $(MT_SAN) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) \
	    $(filter %.a,$^) $(VD_LIBS) $(MT_LIBS)
endef

$(O)examples/nvme/nvme: $(NVME_OBJS) $(VD_LIB) $(MT_LIB)
	$(link)
$(O)examples/nvme-host: $(HOST_OBJS) $(VD_LIB) $(MT_LIB)
	$(link)
$(O)examples/vfu-dump: $(DUMP_OBJS) $(VD_LIB) $(MT_LIB)
	$(link)
$(EXAMPLE_SRCS:%.c=$(O)%): %: %.o $(VD_LIB) $(MT_LIB)
	$(link)
$(TESTS): $(O)%.t: $(O)%.o $(VD_LIB) $(MT_LIB)
	$(link)
$(BENCHES): %: %.o $(VD_LIB) $(MT_LIB)
	$(link)
$(O)t/fuzz/tree: $(FUZZ_PARTS:%.c=$(O)%.o)
$(FUZZERS): %: %.o $(O)t/fuzz/main.o $(VD_LIB) $(MT_LIB)
	$(link)
$(REPLAY): $(O)t/replay.o $(MT_LIB)
	$(link)

# Runs inside the guest, which has no libraries: static, not instrumented.
$(O)t/qemu/guest: t/qemu/guest.c
	$(say) LD $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 $(MT_WARN) -D_GNU_SOURCE -O2 -static -o $@ $<
$(O)t/qemu/boot.bin: t/qemu/boot.S
	$(say) LD $@
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -m32 -nostdlib -static \
	    -Wl,--oformat=binary,-Ttext=0x7c00,-e,_start,--build-id=none \
	    -o $@ $<

# --- running -------------------------------------------------------------

# Installs only what is missing, so that it needs no network when nothing is.
deps:
	@missing=; \
	if ! command -v dpkg-query >/dev/null; then \
		echo "not a Debian system: the packages needed are, by" \
		    "Debian's names: $(DEPS)" >&2; exit 1; \
	fi; \
	for p in $(DEPS); do \
		dpkg-query -W -f '$${Status}' $$p 2>/dev/null | \
		    grep -q 'ok installed' || missing="$$missing $$p"; \
	done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then sudo=; \
	elif command -v sudo >/dev/null; then sudo=sudo; \
	else echo "missing, and neither root nor sudo:$$missing" >&2; exit 1; fi; \
	$$sudo apt-get -q update && \
	$$sudo env DEBIAN_FRONTEND=noninteractive apt-get -q install -y \
	    --no-install-recommends $$missing

demo: all
	@sh examples/demo.sh $(O)

check: tests
	$(if $(strip $(CHECK)),,$(error no test has $(T) in its name))
	@O=$(O) CC="$(CC)" CXX="$(CXX)" $(PROVE) -j$(J) $(CHECK)

check-asan:
	@$(MAKE) --no-print-directory O=build-asan/ SAN=address,undefined check

check-tsan:
	@TSAN_OPTIONS=halt_on_error=1 $(MAKE) --no-print-directory \
	    O=build-tsan/ SAN=thread check

bench: $(BENCHES)
	@for b in $(abspath $(BENCHES)); do $$b $(B) || exit 1; done

# What is found goes to build-fuzz/X/, a crash to build-fuzz/X-crash-*.
FUZZ_CC		?= clang
FUZZ_SECONDS	?= 300
FUZZ_CFLAGS	= -std=gnu11 -g -O1 -fno-omit-frame-pointer -pthread \
	-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	-DMT__OUTLINE_RCU

fuzz-%: t/fuzz/%.c
	@mkdir -p build-fuzz/$* t/corpus/$*
	$(Q)$(FUZZ_CC) $(MT_CPPFLAGS) $(CPPFLAGS) $(FUZZ_CFLAGS) $(LDFLAGS) \
	    -o build-fuzz/$*-fuzzer $< $(wildcard t/fuzz/$*-*.c) \
	    $(VD_SRCS) $(MT_SRCS) $(VD_LIBS) $(MT_LIBS)
	build-fuzz/$*-fuzzer -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
	    -max_len=1024 -artifact_prefix=build-fuzz/$*- \
	    build-fuzz/$* t/corpus/$*

man-lint:
	@mandoc -T lint -W warning $(MAN3)

qemu-env:
	@t/qemu/mkenv

# --- installing ----------------------------------------------------------

define pc
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' \
	    -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|'
endef

install: lib
	install -d $(DESTDIR)$(INCLUDEDIR)/libmemtree \
	    $(DESTDIR)$(INCLUDEDIR)/libvfudma $(DESTDIR)$(LIBDIR)/pkgconfig \
	    $(DESTDIR)$(MANDIR)/man3
	install -m 644 $(MT_HDRS) $(DESTDIR)$(INCLUDEDIR)/libmemtree
	install -m 644 $(VD_HDRS) $(DESTDIR)$(INCLUDEDIR)/libvfudma
	install -m 644 $(MT_LIB) $(VD_LIB) $(DESTDIR)$(LIBDIR)
	$(pc) -e 's|@REQUIRES@|$(MT_PKGS)|' libmemtree/libmemtree.pc.in | \
	    install -m 644 /dev/stdin \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/libmemtree.pc
	$(pc) -e 's|@REQUIRES@|$(VD_PKGS)|' libvfudma/libvfudma.pc.in | \
	    install -m 644 /dev/stdin \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/libvfudma.pc
	install -m 644 $(MAN3) $(DESTDIR)$(MANDIR)/man3
	man3/mlinks | while read -r page name; do \
		ln -sf $$page.3 $(DESTDIR)$(MANDIR)/man3/$$name.3 || exit 1; \
	done

uninstall:
	rm -f $(MT_HDRS:%=$(DESTDIR)$(INCLUDEDIR)/%) \
	    $(VD_HDRS:%=$(DESTDIR)$(INCLUDEDIR)/%) \
	    $(DESTDIR)$(LIBDIR)/libmemtree.a $(DESTDIR)$(LIBDIR)/libvfudma.a \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/libmemtree.pc \
	    $(DESTDIR)$(LIBDIR)/pkgconfig/libvfudma.pc \
	    $(MAN3:man3/%=$(DESTDIR)$(MANDIR)/man3/%)
	man3/mlinks | while read -r page name; do \
		rm -f $(DESTDIR)$(MANDIR)/man3/$$name.3; \
	done
	-rmdir $(DESTDIR)$(INCLUDEDIR)/libmemtree \
	    $(DESTDIR)$(INCLUDEDIR)/libvfudma 2>/dev/null

dist:
	git archive --prefix=memtree-$(VERSION)/ -o memtree-$(VERSION).tar.gz \
	    HEAD

clean:
	rm -rf build-asan build-fuzz build-tsan
	rm -f $(MT_LIB) $(VD_LIB) $(EXAMPLES) $(TESTS) $(BENCHES) $(FUZZERS) \
	    $(REPLAY) $(QEMU_FILES)
	find libmemtree libvfudma examples t -name '*.[od]' -delete

.SECONDARY:
.PHONY: all lib examples tests deps demo check check-asan check-tsan bench \
	man-lint qemu-env install uninstall dist clean

-include $(MT_OBJS:.o=.d) $(VD_OBJS:.o=.d) $(NVME_OBJS:.o=.d) \
	$(HOST_OBJS:.o=.d) $(DUMP_OBJS:.o=.d) $(EXAMPLE_SRCS:%.c=$(O)%.d) \
	$(TEST_SRCS:%.c=$(O)%.d) $(BENCH_SRCS:%.c=$(O)%.d) \
	$(FUZZ_SRCS:%.c=$(O)%.d) $(FUZZ_PARTS:%.c=$(O)%.d) \
	$(O)t/fuzz/main.d $(O)t/replay.d
