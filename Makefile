# llmc - LLM compression as small Unix tools; `make help` lists the targets

CC      ?= cc
CFLAGS  ?= -O2 -g
PREFIX  ?= /usr/local
B       := build

WARN    = -Wall -Wextra -Wshadow -Wconversion
STD     = -std=c11 -D_GNU_SOURCE -ffp-contract=off -fno-math-errno -fno-trapping-math -pthread
ifdef SAN
B       := build/san
SANFLAGS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
endif
# What is there is used; MPI=0, CUDA=0, NCCL=0 leave it out.
MPI     ?= $(if $(shell mpicc --showme:link 2>/dev/null || pkg-config --libs mpich 2>/dev/null),1,0)
ifneq ($(MPI),0)
MPI_CFLAGS := -DLLMC_MPI $(shell mpicc --showme:compile 2>/dev/null || pkg-config --cflags mpich)
MPI_LIBS   := $(shell mpicc --showme:link 2>/dev/null || pkg-config --libs mpich)
endif

ALLC    = $(STD) $(WARN) $(SANFLAGS) $(CFLAGS)
LIBS    = -rdynamic -ldl -ljansson -larchive -lyaml -lpcre2-8 -lutf8proc -lz -lcrypto -lopenblas -ldnnl -lgomp -lm -lpthread

DEPS    = gcc g++ libc6-dev libjansson-dev libarchive-dev libyaml-dev libpcre2-dev libutf8proc-dev zlib1g-dev libssl-dev \
          libopenblas-dev libdnnl-dev libopenmpi-dev openmpi-bin libcmocka-dev perl gzip xz-utils zstd
DEPS_LINT = clang mandoc

# The cuda backend: a shared object that programs load when there is a device. CUDA=0 leaves it out.
NVCC   := $(if $(filter 0,$(CUDA))$(SAN),,$(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null))
NVLIB   = $(patsubst %/bin/nvcc,%/lib64,$(realpath $(NVCC)))
NVARCH  = $(filter $(shell $(NVCC) --list-gpu-arch),compute_80 compute_90 compute_100 compute_120)
NVFLAGS = -std=c++20 -O3 --fmad=false -D_GNU_SOURCE -Xcompiler -fPIC,-ffp-contract=off,-pthread --threads 2 \
          $(foreach a,$(NVARCH),-gencode arch=$a,code=$(a:compute_%=sm_%)) \
          -gencode arch=$(lastword $(NVARCH)),code=$(lastword $(NVARCH))
CUDA_CU = $(filter-out kernels/cuda/nccl.cu,$(sort $(wildcard kernels/cuda/*.cu)))
CUDA_SO = $(if $(NVCC),$(B)/lib/llmc-cuda.so)
# The nccl communicator: another one. Its ranks meet by MPI.
NCCL_H  = $(firstword $(wildcard $(NVLIB)/../include/nccl.h /usr/include/nccl.h))
NCCL_SO = $(if $(filter 0,$(NCCL) $(MPI)),,$(if $(NVCC),$(if $(NCCL_H),$(B)/lib/llmc-nccl.so)))
# The same source for the host, on a stand-in of the libraries: tests.
HOST_SO = $(if $(shell command -v $(CXX)),$(B)/t/llmc-cuda-host.so $(B)/t/llmc-nccl-host.so)
ALLCXX  = -std=c++20 -D_GNU_SOURCE -ffp-contract=off -fno-math-errno -fno-trapping-math -fPIC -pthread $(WARN) \
          $(SANFLAGS) $(CFLAGS)

COMM_MPI = libcommon/comm_mpi.c libcommon/comm_nccl.c libcommon/comm_share.c
COMMON  = $(patsubst %.c,$(B)/%.o,$(filter-out $(if $(filter 0,$(MPI)),$(COMM_MPI)),$(sort $(wildcard libcommon/*.c))))
KERNELS = $(patsubst %.c,$(B)/%.o,$(sort $(wildcard kernels/*.c kernels/ref/*.c kernels/cpu/*.c)))
TOOLS   = $(patsubst tools/%.c,%,$(sort $(wildcard tools/*.c)))
SCRIPTS = llmc
UNITS   = $(patsubst t/unit/%.c,$(B)/t/%,$(sort $(wildcard t/unit/test-*.c)))
HOST_UNITS = $(B)/t/test-cuda $(B)/t/test-cuda-forward
BENCHES = $(patsubst t/bench/%.c,$(B)/t/%,$(sort $(wildcard t/bench/bench-*.c)))
PROGS   = $(TOOLS:%=$(B)/bin/%) $(SCRIPTS:%=$(B)/bin/%)
SOURCES = $(sort $(wildcard tools/*.c libcommon/*.c libcommon/*.h kernels/*.c kernels/*.h kernels/*/*.c kernels/*/*.h \
          kernels/cuda/*.cu kernels/cuda/*.cuh t/cuda-host/*.cc t/cuda-host/*.h t/cuda-host/include/*.h))

all: progs $(CUDA_SO) $(NCCL_SO)

progs: $(PROGS)

help:
	@echo 'make             build every program into build/bin (MPI=0: without MPI, which is found by itself)'
	@echo 'make demo        install what is missing, build, compress the demo model, show perplexity before and after'
	@echo 'make check       install what is missing, build, run all tests (SAN=1: under sanitizers)'
	@echo 'make deps        install the Debian packages that are missing'
	@echo 'make torture-ranks   all numbers of ranks, threads, ways to meet, kills (MODEL=d: another than the demo, KILLS=20)'
	@echo 'make check-cuda-host      the CUDA backend on the host, on a stand-in of the libraries (MODEL=d: its first layers, too)'
	@echo 'make check-cuda, make bench-cuda    the same on a GPU; share/cuda-report.sh does both and writes one file'
	@echo 'make lint        both compilers without warnings, lengths, man pages'
	@echo 'make bench       speed of the kernels on this machine, and of a run by phase (MODEL=d DATA=f SAMPLES=n JSON=f)'
	@echo 'make bench-ranks MODEL=d DATA=f  whole runs of 1, 2, 4 ranks of a thread, each on a processor of its own'
	@echo 'make bench-pack  llmc-pack of a model of 5.6 GB (LAYERS=32: 16 GB) beside cp, in 500 MB; 15 GB of disk in TMPDIR'
	@echo 'make torture     every call of every tool fails or is the last one, kill -9 at 200 random moments; half an hour'
	@echo 'make bench-llama speed of the kernels and of GPTQ at the shapes of Llama-3-8B and of experts (BENCHFLAGS="-j 2")'
	@echo 'make bench-experts    GPTQ of 32 experts one by one and side by side, 2 threads (BENCHFLAGS="-j n")'
	@echo 'make peer-bench  MODEL=d DATA=ids.jsonl [EVAL=f]: LLM Compressor and llmc turn by turn on the same tokens'
	@echo 'make bench-large the 8B shape with random weights in a memory cgroup of 4 GiB (LAYERS=n LIMIT=bytes DIR=d)'
	@echo 'make quality MODEL=d CALIB=f EVAL=f    perplexity of every kind of scheme'
	@echo 'make peer DIR=d  load a result (without DIR: of every preset) in transformers, compare every weight'
	@echo 'make install     into PREFIX ($(PREFIX))'
	@echo 'make clean'

deps:
	@share/deps.sh $(DEPS)

# --- building ---

$(B)/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(CC) $(ALLC) $(EXTRA) -MMD -MP -c -o $@ $<

# Only what adds up over ranks is linked with MPI, which takes its time to load.
$(B)/libcommon/comm.o $(COMM_MPI:%.c=$(B)/%.o) $(B)/libcommon/run.o: EXTRA = $(MPI_CFLAGS)
$(B)/libcommon/comm.o $(COMM_MPI:%.c=$(B)/%.o) $(B)/libcommon/run.o $(B)/libllmc.a: $(B)/with
$(B)/bin/llmc-hessian $(B)/t/test-comm $(B)/t/bench-comm: LIBS += $(MPI_LIBS)

# Changes when what is compiled in does.
$(B)/with: always
	@mkdir -p $(@D)
	@echo 'MPI=$(MPI) $(MPI_CFLAGS)' | cmp -s - $@ || echo 'MPI=$(MPI) $(MPI_CFLAGS)' >$@

# One source, three instruction sets; -O3 so that fixed lanes become vectors. No contraction: same bytes in each.
$(B)/kernels/cpu/ops_c.o $(B)/kernels/cpu/lanes_c.o $(B)/kernels/cpu/lanes_avx2.o $(B)/kernels/cpu/lanes_avx512.o \
    $(B)/kernels/pack.o $(B)/libcommon/dtype.o: EXTRA = -O3
$(B)/kernels/cpu/ops_avx2.o: EXTRA = -O3 -mavx2 -mfma
$(B)/kernels/cpu/ops_avx512.o: EXTRA = -O3 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512bf16 -mfma \
    -mprefer-vector-width=512

$(B)/libllmc.a: $(COMMON) $(KERNELS)
	@rm -f $@
	ar rcs $@ $(filter %.o,$^)

$(B)/bin/%: $(B)/tools/%.o $(B)/libllmc.a
	@mkdir -p $(@D)
	$(CC) $(ALLC) $(LDFLAGS) -o $@ $< $(B)/libllmc.a $(LIBS)

$(SCRIPTS:%=$(B)/bin/%): $(B)/bin/%: tools/%
	@mkdir -p $(@D)
	cp $< $@
	chmod +x $@

$(B)/t/test-%: $(B)/t/unit/test-%.o $(B)/libllmc.a
	@mkdir -p $(@D)
	$(CC) $(ALLC) $(LDFLAGS) -o $@ $< $(B)/libllmc.a $(LIBS) -lcmocka

$(B)/t/bench-%: $(B)/t/bench/bench-%.o $(B)/t/bench/bench.o $(B)/libllmc.a
	@mkdir -p $(@D)
	$(CC) $(ALLC) $(LDFLAGS) -o $@ $< $(B)/t/bench/bench.o $(B)/libllmc.a $(LIBS)

# Watches a command's memory; makes checkpoints of random weights.
$(B)/t/peak: t/bench/peak.c Makefile
	@mkdir -p $(@D)
	$(CC) $(STD) $(WARN) $(CFLAGS) -o $@ $<

$(B)/t/random-model: $(B)/t/bench/random-model.o $(B)/libllmc.a
	@mkdir -p $(@D)
	$(CC) $(ALLC) $(LDFLAGS) -o $@ $< $(B)/libllmc.a $(LIBS)

$(B)/t/recipe-map: $(B)/t/peer/recipe-map.o $(B)/libllmc.a
	@mkdir -p $(@D)
	$(CC) $(ALLC) $(LDFLAGS) -o $@ $< $(B)/libllmc.a $(LIBS)

$(B)/kernels/cuda/%.o: kernels/cuda/%.cu Makefile
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) -MMD -MP -c -o $@ $<

$(B)/lib/llmc-cuda.so: $(CUDA_CU:%.cu=$(B)/%.o)
	@mkdir -p $(@D)
	$(NVCC) -shared -cudart shared -o $@ $^ -L$(NVLIB) -lcublas -lcusolver -Xlinker -rpath,$(NVLIB)

$(B)/lib/llmc-nccl.so: $(B)/kernels/cuda/nccl.o
	@mkdir -p $(@D)
	$(NVCC) -shared -cudart shared -o $@ $^ -L$(NVLIB) -L$(NVLIB)/../lib -lnccl -Xlinker -rpath,$(NVLIB):$(realpath $(NVLIB)/../lib)

$(B)/t/cuda-host/cu/%.o: kernels/cuda/%.cu Makefile
	@mkdir -p $(@D)
	$(CXX) $(ALLCXX) -It/cuda-host/include -MMD -MP -x c++ -c -o $@ $<

$(B)/t/cuda-host/%.o: t/cuda-host/%.cc Makefile
	@mkdir -p $(@D)
	$(CXX) $(ALLCXX) -It/cuda-host/include -MMD -MP -c -o $@ $<

$(B)/t/llmc-cuda-host.so: $(CUDA_CU:kernels/cuda/%.cu=$(B)/t/cuda-host/cu/%.o) $(B)/t/cuda-host/cuda.o $(B)/t/cuda-host/ipc.o
	@mkdir -p $(@D)
	$(CXX) $(ALLCXX) $(LDFLAGS) -shared -o $@ $^

$(B)/t/llmc-nccl-host.so: $(B)/t/cuda-host/cu/nccl.o $(B)/t/cuda-host/nccl.o $(B)/t/cuda-host/cuda.o $(B)/t/cuda-host/ipc.o
	@mkdir -p $(@D)
	$(CXX) $(ALLCXX) $(LDFLAGS) -shared -o $@ $^

$(B)/t/fail.so: t/fail.c Makefile
	@mkdir -p $(@D)
	$(CC) $(STD) $(WARN) $(CFLAGS) -shared -fPIC -o $@ $< -ldl

units: $(UNITS)

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5 \
	    $(DESTDIR)$(PREFIX)/share/man/man7 $(DESTDIR)$(PREFIX)/share/llmc/recipes
	install $(PROGS) $(DESTDIR)$(PREFIX)/bin
	for s in 1 5 7; do install -m 644 man/*.$$s $(DESTDIR)$(PREFIX)/share/man/man$$s; done
	install -m 644 share/recipes/* $(DESTDIR)$(PREFIX)/share/llmc/recipes
	install share/recipes/*.sh $(DESTDIR)$(PREFIX)/share/llmc/recipes

# --- running ---

demo: deps
	@$(MAKE) --no-print-directory -s -j2 all
	@share/demo.sh $(B)

check: deps
	@$(MAKE) --no-print-directory -j2 progs units $(B)/t/fail.so $(B)/t/random-model $(B)/t/peak $(HOST_SO)
	@BUILD=$(B) CMOCKA_MESSAGE_OUTPUT=TAP prove -e '' $(or $(PROVEFLAGS),-j3) $(UNITS) $(sort $(wildcard t/[0-9]*.t))

# What t/8003 and t/8004 do in short: hundreds of runs.
torture-ranks: deps
	@$(MAKE) --no-print-directory -j2 progs $(B)/t/fail.so
	@BUILD=$(B) MATRIX=full MODEL=$(MODEL) KILLS=$(or $(KILLS),20) prove -v -e '' $(PROVEFLAGS) t/8003-ranks-matrix.t \
	    t/8004-ranks-kill.t

# The cuda backend on a stand-in of its libraries; SAN=1: under sanitizers; MODEL=d: the first layers of d, too.
check-cuda-host: deps
	@$(MAKE) --no-print-directory -j2 progs $(HOST_UNITS) $(B)/t/fail.so $(HOST_SO)
	@BUILD=$(B) MODEL=$(MODEL) LLMC_TEST_LONG=1 CMOCKA_MESSAGE_OUTPUT=TAP prove -v -e '' $(PROVEFLAGS) $(HOST_UNITS) \
	    t/7100-cuda-host.t t/7200-nccl-host.t

# On a device: the same tests against the real libraries, then whole runs, then under compute-sanitizer.
check-cuda: all
	@share/cuda-report.sh $(B) check

bench-cuda: all
	@share/cuda-report.sh $(B) bench

# 1: kernels with one thread; 2: with all; 3: a whole run, by phase. MODEL, DATA, SAMPLES: another than the demo's.
bench: all $(BENCHES)
	@t/bench/run.sh $(B) $(JSON)

bench-llama: all $(BENCHES)
	@$(B)/t/bench-kernels --llama $(BENCHFLAGS)
	@$(B)/t/bench-gptq --llama $(BENCHFLAGS)

# Experts of 768 x 2048, one by one with all threads and side by side with one each.
bench-experts: all $(BENCHES)
	@$(B)/t/bench-gptq --experts -j 2 $(BENCHFLAGS)

# Whole runs of 1, 2, 4 ranks of a thread each on as many processors.
bench-ranks: all
	@t/bench/ranks.sh $(B) $(MODEL) $(DATA) $(RANKS)

bench-pack: all $(B)/t/peak $(B)/t/random-model
	@t/bench/pack.sh $(B)

torture: progs $(B)/t/fail.so
	@BUILD=$(B) TORTURE=full prove -v -e '' t/7007-torture.t

peer-bench: all
	@t/peer/bench.sh $(B) $(MODEL) $(DATA) $(EVAL)

# Source to result of the 8B shape in a memory cgroup of 4 GiB. LAYERS=2: a smaller one.
bench-large: all $(B)/t/peak $(B)/t/random-model
	@t/bench/large.sh $(B)

quality: all
	@share/quality.sh $(B) $(MODEL) $(CALIB) $(EVAL) $(SCHEMES)

peer: all
	@t/peer/run.sh $(B) $(DIR)

lint:
	@share/deps.sh $(DEPS) $(DEPS_LINT)
	@$(MAKE) --no-print-directory -s -j2 CC=gcc CFLAGS='-O2 -g -Werror' CUDA=0 B=$(or $(LINT_B),build/lint-gcc) all units
	@$(MAKE) --no-print-directory -s -j2 CC=clang CFLAGS='-O1 -Werror' CUDA=0 B=build/lint-clang all units
	@t/lint.sh $(SOURCES)

clean:
	rm -rf build

-include $(CUDA_CU:%.cu=$(B)/%.d) $(CUDA_CU:kernels/cuda/%.cu=$(B)/t/cuda-host/cu/%.d) $(wildcard $(B)/t/cuda-host/*.d $(B)/t/cuda-host/cu/*.d $(B)/t/bench/*.d)
-include $(patsubst %.o,%.d,$(COMMON) $(KERNELS) $(TOOLS:%=$(B)/tools/%.o) $(UNITS:$(B)/t/%=$(B)/t/unit/%.o))
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: always all progs help deps units install demo check torture-ranks check-cuda-host check-cuda bench-cuda bench bench-llama \
    bench-experts bench-ranks bench-pack bench-large torture peer-bench \
    quality peer lint clean
