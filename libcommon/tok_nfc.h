/* tok_nfc - canonical composition (NFC), as the tokenizers library does it */
#ifndef LLMC_TOK_NFC_H
#define LLMC_TOK_NFC_H

#include "buf.h"

#include <stddef.h>

/* Appends text, which is UTF-8, composed. RC_OS; a failed append shows in buf_ok. */
int nfc_add(struct buf *out, const char *text, size_t len);

#endif
