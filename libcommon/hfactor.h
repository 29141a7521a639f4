/* hfactor - the factor of a Hessian, which modules that share an input share
 *
 * hfactor_want names one, hfactor_make makes it once: from then on any number of threads may read it.
 */
#ifndef LLMC_HFACTOR_H
#define LLMC_HFACTOR_H

#include "correct.h"
#include "run.h"

#include <limits.h>

struct hfactor {
    char     path[PATH_MAX]; /* of the Hessian */
    int      group;          /* of the recipe: damping and order are its */
    const struct task *t;    /* the first that asked */
    int      beside;         /* made at the same time, itself included; 0: it is alone */
    bool     made;
    int      rc;             /* of making it, */
    char     error[512];     /* and why */
    int      n;
    float   *l;              /* NULL: the recipe's group is rounded plainly */
    uint8_t *dead;
    int     *order;
    float   *diag;           /* of H, over its mean; NULL: few */
    double   damp;           /* as used */
    struct correction correction;
    bool     few;            /* tokens came to the expert: a named rule, not a failure */
    bool     failed;         /* not positive definite */
};

bool hfactor_is(const struct hfactor *f, const struct task *t, const char *path);
void hfactor_want(struct hfactor *f, const struct task *t, const char *path); /* *f is zero, or freed */
int  hfactor_make(struct hfactor *f, struct run *run); /* the same status when it is asked again */
void hfactor_free(struct hfactor *f);

#endif
