/* c - the headers in C that the device code shares, for C++ */
#ifndef LLMC_CUDA_C_H
#define LLMC_CUDA_C_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define _Noreturn [[noreturn]]
extern "C" {
#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"
#include "../cpu/ops_math.h"
#include "../dev.h"
#include "../factor.h"
#include "../scale_of.h"
}
#undef _Noreturn

/* Activations are BF16 or F32. */
HD static inline float
act_get(const void *p, enum dtype dt, size_t i)
{
    return dt == DT_BF16 ? bf16_to_f32(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

HD static inline void
act_put(void *p, enum dtype dt, size_t i, float v)
{
    if (dt == DT_BF16)
        ((uint16_t *)p)[i] = bf16_from_f32(v);
    else
        ((float *)p)[i] = v;
}

#endif
