/* ops_c - inner loops for any processor */
#include "ops.h"
#include "ops_pairs_c.h"
#include "ops_plain.h"

#define OPS_TABLE ops_c
#define OPS_NAME "c"
#include "ops_impl.h"
