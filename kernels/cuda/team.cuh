/* team - the threads of a block: how one text of a kernel runs on a device and, thread by thread, on the host
 *
 * A kernel is a struct:
 *
 *     enum { THREADS };              of a block
 *     struct args, shared, regs;     what the launch passes; of a block; of a thread, kept from phase to phase
 *     DEV static void run(team<regs> &g, shared &s, const args &a);
 *
 * run() cuts the work at its barriers: g.each(f) calls the phase f(t, r) for every thread t and then waits for all of
 * the block; g.each_warp(f) waits for the WARP threads only that count as one. g.x and g.y are the block's place in a
 * grid of g.blocks by any height.
 *
 * UNROLL stands before a loop whose indices into registers must be constants.
 *
 * On a device each thread calls f once. On the host one thread calls it in a loop, upwards, or downwards if team_down
 * is set: a phase whose threads depend on one another without a barrier gives another result one of the two ways.
 * shared and regs start as NaN there, so that what is read before it is written shows.
 */
#ifndef LLMC_CUDA_TEAM_CUH
#define LLMC_CUDA_TEAM_CUH

enum { WARP = 32 };

#ifdef __CUDACC__

#define DEV __device__
#define UNROLL _Pragma("unroll")

template <class R> struct team {
    int x, y, blocks;
    R   r;

    DEV team() : x((int)blockIdx.x), y((int)blockIdx.y), blocks((int)gridDim.x) {}

    template <class F> DEV void
    each(F f)
    {
        f((int)threadIdx.x, r);
        __syncthreads();
    }

    template <class F> DEV void
    each_warp(F f)
    {
        f((int)threadIdx.x, r);
        __syncwarp();
    }
};

template <class K> __global__ void __launch_bounds__(K::THREADS)
team_entry(const typename K::args a)
{
    extern __shared__ __align__(16) unsigned char memory[];
    team<typename K::regs> g;

    K::run(g, *reinterpret_cast<typename K::shared *>(memory), a);
}

/* *p, at least 0, becomes the larger of itself and v, whatever threads do so at once: bits order as values. */
DEV static inline void
raise_to(float *p, float v)
{
    atomicMax(reinterpret_cast<int *>(p), __float_as_int(v));
}

#else

#include <cstring>
#include <new>

#define DEV
#define UNROLL

extern int team_down;

template <class R> struct team {
    int x, y, blocks, threads;
    R  *r;

    template <class F> void
    each(F f)
    {
        for (int i = 0; i < threads; i++) {
            int t = team_down ? threads - 1 - i : i;

            f(t, r[t]);
        }
    }

    /* The other warps must not need this one's phase: they run before and after it. */
    template <class F> void
    each_warp(F f)
    {
        each(f);
    }
};

/* All blocks of a launch. */
template <class K> void
team_run(int blocks, int height, const typename K::args &a)
{
    struct room {
        alignas(16) typename K::shared s;
        typename K::regs r[K::THREADS];
    };
    room *m = static_cast<room *>(::operator new(sizeof(room), std::align_val_t(64)));

    for (int i = 0; i < blocks * height; i++) {
        int b = team_down ? blocks * height - 1 - i : i;
        team<typename K::regs> g = { b % blocks, b / blocks, blocks, K::THREADS, m->r };

        memset(static_cast<void *>(m), 0xff, sizeof(*m));
        K::run(g, m->s, a);
    }
    ::operator delete(m, std::align_val_t(64));
}

static inline void
raise_to(float *p, float v)
{
    *p = v > *p ? v : *p;
}

#endif
#endif
