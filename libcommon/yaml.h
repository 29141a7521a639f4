/* yaml - a bounded YAML document as a JSON tree
 *
 * Plain scalars resolve as YAML 1.1 has it (null, booleans with yes/no/on/off, integers, floats), quoted ones are
 * strings. Duplicate keys, aliases, several documents and more than JSON_DEPTH_MAX levels are refused; a tag is refused
 * unless it is a core one or one of Python's that LLM Compressor writes for enums, whose value is the string inside.
 * JSON is YAML. A Markdown file's front matter, between lines of ---, is read alone.
 */
#ifndef LLMC_YAML_H
#define LLMC_YAML_H

#include "json.h"

int yaml_read_file(json_t **out, const char *path);
/* RC_DATA "SUBJECT: line N: what" */
int yaml_read_mem(json_t **out, const char *text, size_t len, const char *subject);

#endif
