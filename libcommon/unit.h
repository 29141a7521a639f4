/* unit - a module on its way: scales, rounding, publication
 *
 * Units may be on their way side by side, each with a struct run whose device is its own, once their factors are made.
 */
#ifndef LLMC_UNIT_H
#define LLMC_UNIT_H

#include "hfactor.h"

struct unit {
    const struct task *t;
    char            path[PATH_MAX]; /* of its Hessian; "": its recipe needs nothing from calibration */
    struct hfactor *f;              /* NULL: it needs none */
    double          loss, rtn_loss, damp, seconds;
    const char     *method;         /* NULL: not published */
    bool            begun;
    int             rc;
};

/* Makes the factor unless it is made. A failure is told at once. */
void unit_do(struct run *run, struct unit *u);
/* The same of several, none a cache's, rounded together where the device takes modules of one shape in one launch. */
void unit_launch(struct run *run, struct unit *u, int count);

#endif
