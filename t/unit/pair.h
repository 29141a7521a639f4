/* pair - both host backends, the cpu one with the inner loops of an instruction set */
#ifndef LLMC_PAIR_H
#define LLMC_PAIR_H

#include "../../kernels/dev.h"
#include "../../libcommon/msg.h"
#include "unit.h"

struct pair {
    struct dev *ref, *cpu;
};

/* isa NULL: the best. */
static inline void
open_pair(struct pair *p, const char *isa, int threads)
{
    struct dev_opts o = { .threads = threads };

    if (isa != NULL)
        (void)setenv("LLMC_ISA", isa, 1);
    else
        (void)unsetenv("LLMC_ISA");
    assert_int_equal(backend_ref.open(&p->ref, &o), RC_OK);
    assert_int_equal(backend_cpu.open(&p->cpu, &o), RC_OK);
}

static inline void
close_pair(struct pair *p)
{
    backend_ref.close(p->ref);
    backend_cpu.close(p->cpu);
    (void)unsetenv("LLMC_ISA");
}

#endif
