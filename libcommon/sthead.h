/* sthead - parses the JSON header of a safetensors file; used by safetensors.c alone
 *
 * One pass without recursion over a text that may hold 100000 tensors and comes from anywhere.
 */
#ifndef LLMC_STHEAD_H
#define LLMC_STHEAD_H

#include "safetensors.h"

/* Fills tensors and meta (in the order of the text), names and data_bytes of st, whose path and header_bytes are set.
 * All is checked but duplicate names. The data of a tensor is its offset, cast. RC_DATA "PATH: what". */
int sthead_parse(struct st_file *st, const char *text, size_t bytes);

/* RC_DATA unless 1 to ST_NAME_MAX bytes without control bytes. */
int sthead_check_name(const char *name);

#endif
