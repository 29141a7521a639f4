/* stream - what llmc-calib and llmc-hessian say to the next stage
 *
 * llmc-calib writes safetensors frames (llmc-stream(5)). Metadata "kind" is
 *     begin   step, plan: inputs of the step follow
 *     input   step, point, block, sequences; tensor "x" [rows, n], BF16 or F32
 *     cache   step, block: what attention cached at the step's point o; tensor "range" F32 [2 heads, 2], -min and max
 *             of keys, then of values, over the block's tokens
 *     end     step: all blocks have been sent
 *     failed  step: the sender has said why and gives up; whoever reads it ends with RC_RETRY and says nothing
 * and the stream ends with its file.
 *
 * llmc-hessian writes a line "TASK<TAB>FILE" for each task of a step whose Hessian is complete, and STREAM_FAILED_LINE
 * where it fails or reads of a failure.
 */
#ifndef LLMC_STREAM_H
#define LLMC_STREAM_H

#include "arch.h"
#include "safetensors.h"

#include <stdbool.h>

#define STREAM_FAILED_LINE "!failed"

enum stream_kind { STREAM_BEGIN, STREAM_INPUT, STREAM_CACHE, STREAM_END, STREAM_FAILED };

struct stream_frame {
    enum stream_kind kind;
    int              step, block, rows, sequences;
    enum point       point;
    int              cols;
    enum dtype       dtype;
    const void      *x;    /* of INPUT, valid until stream_done; of CACHE, [rows, 2] F32 */
    struct st_file   st;
    char             plan[72];
};

/* Writers. RC_IO. */
int stream_begin(int fd, int step, const char *plan);
int stream_input(int fd, int step, enum point point, int block, int sequences, const void *x, enum dtype dt, int rows,
    int cols);
int stream_cache(int fd, int step, int block, const float *range, int count); /* pairs */
int stream_end(int fd, int step);
int stream_failed(int fd, int step);

/* RC_OK, RC_RETRY at the end of the stream, RC_DATA, RC_IO. */
int  stream_next(struct stream_frame *f, int fd);
void stream_done(struct stream_frame *f);

/* True once nobody reads what fd is the writing end of. */
bool stream_reader_gone(int fd);

#endif
