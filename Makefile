# llmc - LLM compression as small Unix tools; `make help` lists the targets
VERSION = 0.1.0

CC      ?= cc
CFLAGS  ?= -O2 -g
B       := build

WARN    = -Wall -Wextra -Wshadow -Wconversion
STD     = -std=c11 -D_GNU_SOURCE -ffp-contract=off -fno-math-errno -pthread
ifdef SAN
B       := build/san
SANFLAGS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
endif
INCS    = -I$(B)
ALLC    = $(STD) $(WARN) $(INCS) $(SANFLAGS) $(CFLAGS)

LIBS    = -ljansson -larchive -lyaml -lpcre2-8 -lutf8proc -lopenblas -ldnnl -lgomp -lcrypto -lm -lpthread

COMMON  = $(patsubst %.c,$(B)/%.o,$(sort $(wildcard libcommon/*.c)))
KERNELS = $(patsubst %.c,$(B)/%.o,$(sort $(wildcard kernels/*.c kernels/ref/*.c kernels/cpu/*.c)))
TOOLS   = $(patsubst tools/%.c,%,$(sort $(wildcard tools/*.c)))
UNITS   = $(patsubst t/unit/%.c,$(B)/t/%,$(sort $(wildcard t/unit/test-*.c)))

SCRIPTS = llmc

all: $(TOOLS:%=$(B)/bin/%) $(SCRIPTS:%=$(B)/bin/%)

$(SCRIPTS:%=$(B)/bin/%): $(B)/bin/%: tools/%
	@mkdir -p $(@D)
	cp $< $@
	chmod +x $@

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALLC) $(EXTRA) -MMD -MP -c -o $@ $<

# One source, three instruction sets; -O3 so that the fixed lanes become vectors. No contraction: same bytes in each.
$(B)/kernels/cpu/ops_c.o: EXTRA = -O3
$(B)/kernels/cpu/ops_avx2.o: EXTRA = -O3 -mavx2 -mfma
$(B)/kernels/cpu/ops_avx512.o: EXTRA = -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma \
    -mprefer-vector-width=512

$(B)/libllmc.a: $(COMMON) $(KERNELS)
	@rm -f $@
	ar rcs $@ $^

$(B)/bin/%: $(B)/tools/%.o $(B)/libllmc.a
	@mkdir -p $(@D)
	$(CC) $(ALLC) $(LDFLAGS) -o $@ $< $(B)/libllmc.a $(LIBS)

$(B)/t/%: $(B)/t/unit/%.o $(B)/libllmc.a
	@mkdir -p $(@D)
	$(CC) $(ALLC) $(LDFLAGS) -o $@ $< $(B)/libllmc.a $(LIBS) -lcmocka

units: $(UNITS)

-include $(shell find $(B) -name '*.d' 2>/dev/null)
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all units
