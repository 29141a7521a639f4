/* samples - calibration samples as token ids, gathered into blocks */
#ifndef LLMC_SAMPLES_H
#define LLMC_SAMPLES_H

#include "shard.h"

struct samples {
    int32_t *ids;    /* of all samples, one after the other */
    size_t   count, cap;
    int     *length; /* [samples] */
    int      samples;
    size_t   length_cap;
};

/* The first o->samples of o->data, see text.h. Rows of o->length tokens at most, the rest of a longer one dropped, and
 * left out if they have less than o->min_length. Streams, and with o->pack everything, are cut into samples of
 * o->length exactly, and what is left at the end of the stream (o->pack: of the data) is dropped. Text is tokenised
 * by the model's tokenizer.json, conversations after its chat template has made text of them. RC_DATA: no sample, an
 * id outside the vocabulary. */
int  samples_read(struct samples *s, const char *model_dir, const struct shard_opts *o, int vocab);
/* Fills plan blocks: consecutive samples up to block_tokens, at least one; and the data's fingerprint. */
int  samples_blocks(const struct samples *s, int block_tokens, struct plan *p);
int  samples_write(const struct samples *s, const struct plan *p);
void samples_free(struct samples *s);

#endif
