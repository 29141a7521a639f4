/* yaml - a bounded YAML document as a JSON tree, and values written so that YAML reads them back
 *
 * Plain scalars resolve as PyYAML's safe_load has it (YAML 1.1: null, booleans with yes/no/on/off,
 * integers in any of its bases, floats with a point), but a date stays a string; quoted ones are
 * strings. JSON is YAML. Of a file named *.md the front matter is read, between lines of "---".
 *
 * Refused, with the line: duplicate keys, keys that are no strings, merge keys, several documents,
 * numbers that are not finite or exceed 64 bits, more than JSON_DEPTH_MAX levels, aliases that
 * stand for too much, and tags, unless they are the core ones and fit their value, or those of
 * Python that LLM Compressor writes: of an enum, whose value is the one string inside, of a value
 * that was not given, which is its name, and of a tuple, which is a list.
 */
#ifndef LLMC_YAML_H
#define LLMC_YAML_H

#include "json.h"

/* Where the keys of a document stand. */
struct yaml_lines {
    struct yaml_line *at;
    size_t            count, cap;
};

/* lines may be NULL; else the caller zeroes it before, and frees it whatever the status.
 * RC_DATA: "SUBJECT: line N: what". */
int  yaml_read_file(json_t **out, struct yaml_lines *lines, const char *path);
int  yaml_read_mem(json_t **out, struct yaml_lines *lines, const char *text, size_t len,
    const char *subject);
void yaml_lines_free(struct yaml_lines *lines);

/* Line of a key of a mapping; 0: not known, as inside of what an alias stands for. */
size_t yaml_line(const struct yaml_lines *lines, const json_t *mapping, const char *key);

/* Appends s, quoted unless it reads back as it is. Bytes that are not UTF-8 become U+FFFD. */
void yaml_put_str(struct buf *b, const char *s);
/* Appends a finite number that reads back as the same float. */
void yaml_put_real(struct buf *b, double d);

/* yaml_scalar.c: what a plain scalar means. RC_DATA, without a line: a number out of range. */
int yaml_scalar(json_t **out, const char *s);

#endif
