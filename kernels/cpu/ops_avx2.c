/* ops_avx2 - inner loops for AVX2 and FMA (compiled with those flags) */
#include "ops.h"
#include "ops_pairs_avx2.h"
#include "ops_plain.h"

#define OPS_TABLE ops_avx2
#define OPS_NAME "avx2"
#include "ops_impl.h"
