/* special - call an inlined function with a spec whose grid and types are constants: no test is left in its loops
 *
 * QSPEC_CALL(fn, spec, args...) is fn(args..., s) where s says what matters of *spec to one element: the grid, its
 * bits, and the type of products: T, or f32 where scales are not of type T. v10 is left to the caller.
 */
#ifndef LLMC_SPECIAL_H
#define LLMC_SPECIAL_H

#include "quant.h"

#define QSPEC_CONST(spec, g, type, of_scale) \
    (struct qspec){ .grid = g, .bits = (spec)->bits, .scale = of_scale, .t = type }

#define QSPEC_BY_TYPE(fn, spec, g, ...)                                \
    do {                                                               \
        if ((spec)->scale != (spec)->t)                                \
            fn(__VA_ARGS__, QSPEC_CONST(spec, g, DT_F32, DT_F8_E8M0)); \
        else if ((spec)->t == DT_BF16)                                 \
            fn(__VA_ARGS__, QSPEC_CONST(spec, g, DT_BF16, DT_BF16));   \
        else if ((spec)->t == DT_F16)                                  \
            fn(__VA_ARGS__, QSPEC_CONST(spec, g, DT_F16, DT_F16));     \
        else                                                           \
            fn(__VA_ARGS__, QSPEC_CONST(spec, g, DT_F32, DT_F32));     \
    } while (0)

#define QSPEC_CALL(fn, spec, ...)                                             \
    do {                                                                      \
        if ((spec)->grid == GRID_INT)                                         \
            QSPEC_BY_TYPE(fn, spec, GRID_INT, __VA_ARGS__);                   \
        else if ((spec)->grid == GRID_E4M3)                                   \
            QSPEC_BY_TYPE(fn, spec, GRID_E4M3, __VA_ARGS__);                  \
        else                                                                  \
            fn(__VA_ARGS__, QSPEC_CONST(spec, GRID_E2M1, DT_F32, DT_F8_E8M0)); \
    } while (0)

#endif
