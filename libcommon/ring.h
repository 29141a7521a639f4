/* ring - slots of shared memory between the writer of a stream and its reader
 *
 * The segment has no name in a file system: the reader opens it as /proc/PID/fd/N of the writer, so that nothing is
 * left behind however either ends. Frames are numbered from 0 and use slot number % slots; the writer may be that many
 * frames ahead. Counts are in the segment's first page. One writer, one reader.
 */
#ifndef LLMC_RING_H
#define LLMC_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring;

/* Writer. RC_OS. */
int         ring_create(struct ring **out, size_t slot_bytes, int slots);
const char *ring_path(const struct ring *r);
/* What the writer tells a reader before it comes, RING_NOTE bytes, zero at first: how to open slots elsewhere. */
enum { RING_NOTE = 3072 };
void *ring_note(struct ring *r);
bool  ring_noted(struct ring *r); /* after it has come: it does as the note says */
/* Whether the reader has let go of what the note told, after waiting so long at most. */
bool ring_left(struct ring *r, int wait_ms, bool (*gone)(void *ctx), void *ctx);
/* Whether a reader has come, after waiting so long at most. gone(ctx), asked now and then, ends the waiting. */
bool ring_attached(struct ring *r, int wait_ms, bool (*gone)(void *ctx), void *ctx);
/* Slot for frame n once it is free; NULL: gone(ctx). */
void  *ring_slot(struct ring *r, uint32_t n, bool (*gone)(void *ctx), void *ctx);
size_t ring_slot_bytes(const struct ring *r);
int    ring_slots(const struct ring *r);

/* Reader. path is what ring_path() gave, through untrusted hands. RC_NOINPUT: not to be opened from here; RC_DATA.
 * take(ctx, r), if any, says whether it does as the note says. */
int         ring_attach(struct ring **out, const char *path, bool (*take)(void *ctx, struct ring *r), void *ctx);
const void *ring_frame(const struct ring *r, uint32_t n, size_t bytes); /* NULL: larger than a slot */
void        ring_done(struct ring *r, uint32_t n);
void        ring_leave(struct ring *r); /* it has let go */

void ring_close(struct ring *r); /* NULL is fine */

#endif
