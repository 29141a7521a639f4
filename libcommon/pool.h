/* pool - threads over fixed tiles
 *
 * pool_run calls fn(ctx, tile, worker) once for every tile 0 <= tile < tiles, on up to pool_threads() threads, the
 * caller being worker 0, and returns when all are done. Which thread takes which tile is not defined, so a tile's
 * result must depend on its number alone: then bytes do not depend on the number of threads. Not reentrant.
 */
#ifndef LLMC_POOL_H
#define LLMC_POOL_H

struct pool;

int  pool_open(struct pool **out, int threads); /* 0: as many as the process may use; RC_OS */
void pool_close(struct pool *p);                /* NULL is fine */
int  pool_threads(const struct pool *p);
void pool_run(struct pool *p, int tiles, void (*fn)(void *ctx, int tile, int worker), void *ctx);

int pool_cpus(void); /* processors that this process may run on (affinity and cgroup quota), at least 1 */

#endif
