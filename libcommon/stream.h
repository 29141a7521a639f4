/* stream - what llmc-calib and llmc-hessian say to the next stage
 *
 * llmc-calib writes safetensors frames (llmc-stream(5)). Metadata "kind" is
 *     begin   step, plan, points: inputs of the step at these points follow; ring: shared memory that frames may lie in
 *     input   step, point, block, sequences; tensor "x" [rows, n], BF16 or F32; or, once a reader has opened the ring,
 *             frame, its number, and dtype, rows, cols of x, which lies there
 *             of pairs also tensor "original" [rows, n], the original model's inputs for the same tokens; or pair: it
 *             lies behind x
 *             sequences 0: the grid of sums follows from it, and nothing is added; point: of an expert, "down.17"
 *     cache   step, block: what attention cached at the step's point o; tensor "range" F32 [2 heads, 2], -min and max
 *             of keys, then of values, over the block's tokens
 *     end     step: all blocks have been sent
 *     leave   step 0: the sender frees the device memory that it shared; stream_next() lets go of it and reads on
 *     failed  step: the sender has said why and gives up; whoever reads it ends with RC_RETRY and says nothing
 * and the stream ends with its file.
 *
 * llmc-hessian writes a line "TASK<TAB>FILE" for each task of a step whose Hessian is complete, and STREAM_FAILED_LINE
 * where it fails or reads of a failure; one rank of several ends a pipe with STREAM_END_LINE and looks after its
 * reader.
 */
#ifndef LLMC_STREAM_H
#define LLMC_STREAM_H

#include "../kernels/backend.h"
#include "arch.h"
#include "ring.h"
#include "safetensors.h"

#include <stdbool.h>

#define STREAM_FAILED_LINE "!failed"
#define STREAM_END_LINE    "!end"

enum stream_kind { STREAM_BEGIN, STREAM_INPUT, STREAM_CACHE, STREAM_END, STREAM_FAILED, STREAM_LEAVE };

/* A writer. */
struct stream_out {
    int           fd;
    struct ring  *ring;    /* NULL: bytes go through fd */
    struct share *share;   /* slots of the device in place of the ring's; NULL: those */
    bool          tried;   /* whether the reader opened the ring has been found out */
    int           wait_ms; /* for a reader to open it */
    uint32_t      sent;    /* frames in the ring */
    const struct backend *bk; /* the caller sets both after stream_open: inputs may lie on this device; NULL: never */
    struct dev   *dev;
};

/* Shared memory for so many inputs of at most so many bytes, which is used once a reader has opened it; 0 of either:
 * everything through fd. One that the reader reads, one that waits for it, and one that is written keep both busy. */
void stream_open(struct stream_out *o, int fd, size_t largest, int slots);
void stream_close(struct stream_out *o);
/* After bk and dev are set: frames stay on the device if the reader is there, too; else it says why not, once. */
void stream_share(struct stream_out *o);
/* RC_IO; where the reader of the ring went away, too. */
int stream_begin(struct stream_out *o, int step, const char *plan, const bool *points); /* [ARCH_POINTS_MAX] */
int stream_input(struct stream_out *o, int step, enum point point, int block, int sequences, const void *x,
    enum dtype dt, int rows, int cols);
/* With the original's inputs, [rows, cols]; NULL: without. */
int stream_pair(struct stream_out *o, int step, enum point point, int block, int sequences, const void *x,
    const void *original, enum dtype dt, int rows, int cols);
int stream_cache(struct stream_out *o, int step, int block, const float *range, int count); /* pairs */
int stream_end(struct stream_out *o, int step);
int stream_failed(int fd, int step);

/* A reader: zero it but for fd and, where inputs may come by device memory, bk and dev. */
struct stream_in {
    int           fd;
    struct ring  *ring;
    const struct backend *bk;
    struct dev   *dev;
    struct share *share; /* inputs lie there, not in the ring */
};

struct stream_frame {
    enum stream_kind kind;
    int              step, block, rows, sequences;
    enum point       point;
    int              cols;
    enum dtype       dtype;
    const void      *x;    /* of INPUT, valid until stream_done, perhaps the device's; of CACHE, [rows, 2] F32 */
    const void      *original; /* of INPUT, as x; NULL: no pair */
    struct st_file   st;
    struct ring     *ring; /* x lies there */
    uint32_t         number;
    char             plan[72];
    bool             points[ARCH_POINTS_MAX]; /* of BEGIN: which follow */
};

/* RC_OK, RC_RETRY at the end of the stream, RC_DATA, RC_IO. */
int  stream_next(struct stream_in *in, struct stream_frame *f);
void stream_done(struct stream_frame *f);
void stream_in_close(struct stream_in *in);

/* True once nobody reads what fd is the writing end of. */
bool stream_reader_gone(int fd);

#endif
