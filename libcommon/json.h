/* json - bounded reading of JSON, typed look-up with ranges, and writing
 *
 * Trees are jansson's (json_t, json_decref). Readers refuse duplicate keys, more than JSON_DEPTH_MAX levels and files
 * of more than JSON_BYTES_MAX. The jget_ functions look a key up in an object: absent or null gives the default and
 * RC_OK, another type or range is RC_DATA with a sentence that names the key.
 */
#ifndef LLMC_JSON_H
#define LLMC_JSON_H

#include "buf.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

enum { JSON_DEPTH_MAX = 64, JSON_BYTES_MAX = 1 << 28 };

/* A document with an integer beyond 64 bits has reals alone: tokenizers give 10^30 for a length without limit. */
int jread_file(json_t **out, const char *path);
int jread_mem(json_t **out, const char *text, size_t len, const char *subject);

int jget_int(const json_t *obj, const char *key, int64_t def, int64_t min, int64_t max, int64_t *out);
int jget_real(const json_t *obj, const char *key, double def, double *out); /* any finite number */
int jget_bool(const json_t *obj, const char *key, bool def, bool *out);
int jget_str(const json_t *obj, const char *key, const char *def, const char **out); /* lives as long as obj */

/* Indented by two, keys sorted when asked, with a final newline. The caller frees the text with mem_free. */
int jdump(const json_t *root, bool sorted, char **out);

/* Appends s quoted and escaped; a byte that is not UTF-8 becomes U+FFFD. */
void jput_str(struct buf *b, const char *s);
/* Bytes of the UTF-8 character at s, of which len bytes may be read; 0: not one. NUL counts as a character. */
size_t jutf8(const char *s, size_t len);

#endif
