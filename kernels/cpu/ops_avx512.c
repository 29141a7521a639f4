/* ops_avx512 - inner loops for AVX-512 with bf16 dot products (compiled with those flags) */
#include "ops.h"
#include "ops_products.h"
#include "ops_vectors.h"

#define OPS_TABLE ops_avx512
#define OPS_NAME "avx512"
#include "ops_impl.h"

const struct ops ops_avx512_fma = OPS_ROW("avx512fma", ops_dot_fma);
