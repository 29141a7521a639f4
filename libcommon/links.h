/* links - how a work directory refers to the model that it was made from
 *
 * weights/TASK of a task that is not done is a symbolic link to the file of the source that holds the module's weight
 * (of a model in a tar, the tar), and plan.json names the model. Both are relative to where they lie when work
 * directory and model share a directory other than the root, so that they can move together; else absolute. Programs
 * read the model by plan.json; the links are for people, and their being links means that the task is not done.
 */
#ifndef LLMC_LINKS_H
#define LLMC_LINKS_H

#include "arch.h"
#include "model.h"
#include "plan.h"

#include <limits.h>

/* PATH, which exists, as seen from DIR, which does, too: relative or absolute. RC_NOINPUT, RC_DATA (too long). */
int links_path(const char *dir, const char *path, char out[PATH_MAX]);

/* Notes in p->json when the model's shards were changed last, and their sizes ("model_files"). What the fingerprint of
 * the model does not see, since that reads only pieces, links_check does: RC_DATA, naming the shard. */
int links_stamp(struct plan *p, const struct model *m);
int links_check(const struct plan *p, const struct model *m);

/* Makes or replaces the links of all tasks that are not done, each by rename. RC_CANTCREATE, RC_NOINPUT. */
int links_make(const struct plan *p, const struct arch *a, const struct model *m);

/* Where work directory or model have moved: NULL finds the model where plan.json says. RC_DATA: it is another model;
 * RC_NOINPUT: it is not there; RC_RETRY: a rank is at work. */
int links_again(const char *dir, const char *model);

#endif
