/* ref/gptq - GPTQ as its authors wrote it: explicit inverse, right-looking updates. Slow; it defines the result.
 *
 * In processing order i = 0, 1, ... (position p = n - 1 - i of the factor) the textbook says
 *
 *     G = H^-1 = U'U, U upper;   e_i = (w_i - q_i) / U_ii;   w_j -= e_i U_ij for all j > i.           (1)
 *
 * The fast backends use the factor itself. Let w be the original row and d = w - q what is lost in all. The updates of
 * (1) leave w~_j = w_j - sum_{i<j} e_i U_ij when column j's turn comes, so w_j - q_j = sum_{i<=j} e_i U_ij: d = e U,
 * hence
 *
 *     e = d U^-1.                                                                                    (2)
 *
 * H = G^-1 = U^-1 U'^-1, and the lower Cholesky factor L of H in the reversed order, H[p][q] = (L L')[p][q], is U^-1
 * with rows and columns reversed: reversing an upper triangular matrix both ways gives a lower one, and the factor with
 * a positive diagonal is unique. So U_ii = 1 / L_pp, (2) is
 *
 *     e_p = sum_{q >= p} d_q L_qp,                                                                   (3)
 *
 * and since e_p = (w~_p - q_p) L_pp while d_p = w_p - q_p,
 *
 *     w~_p = w_p + (1 / L_pp) sum_{q > p} d_q L_qp.                                                  (4)
 *
 * One factorisation, no inverse, and column p needs only the losses of columns already rounded.
 */
#include "gptq.h"

#include "../../libcommon/mem.h"
#include "../../libcommon/msg.h"

#include <math.h>

/* a = lower factor of a symmetric positive definite matrix, in place; both triangles are read and written. */
static int
lower(double *a, int n)
{
    size_t ld = (size_t)n;

    for (size_t j = 0; j < ld; j++) {
        if (!(a[j * ld + j] > 0) || !isfinite(a[j * ld + j]))
            return err_set(RC_NUMERIC, "not positive definite at column %zu of %d", j, n);
        a[j * ld + j] = sqrt(a[j * ld + j]);
        for (size_t i = j + 1; i < ld; i++)
            a[i * ld + j] /= a[j * ld + j];
        for (size_t i = j + 1; i < ld; i++)
            for (size_t k = j + 1; k <= i; k++)
                a[i * ld + k] -= a[i * ld + j] * a[k * ld + j];
        for (size_t k = j + 1; k < ld; k++)
            a[j * ld + k] = 0;
    }
    return RC_OK;
}

/* g = (C C')^-1 = C'^-1 C^-1, by solving for each unit vector. */
static void
inverse(double *g, const double *c, int n)
{
    size_t ld = (size_t)n;

    for (size_t k = 0; k < ld; k++) {
        for (size_t i = 0; i < ld; i++) {
            double x = i == k;

            for (size_t j = 0; j < i; j++)
                x -= c[i * ld + j] * g[j * ld + k];
            g[i * ld + k] = x / c[i * ld + i];
        }
        for (size_t i = ld; i-- > 0;) {
            double x = g[i * ld + k];

            for (size_t j = i + 1; j < ld; j++)
                x -= c[j * ld + i] * g[j * ld + k];
            g[i * ld + k] = x / c[i * ld + i];
        }
    }
}

/* h: H in processing order; g: its inverse's lower factor, so that U_ij = g[j][i]. */
static int
textbook(double *h, double *g, const struct gptq_job *job)
{
    int n = job->cols, rc;
    size_t ld = (size_t)n;
    double *c;

    if ((c = mem_alloc(ld * ld, sizeof(*c))) == NULL)
        return RC_OS;
    for (int i = 0; i < n; i++) {
        for (int j = 0; j < n; j++) {
            int p = n - 1 - i, q = n - 1 - j;
            double x = 0;

            for (int k = 0; k <= (p < q ? p : q); k++)
                x += (double)job->l[(size_t)p * ld + (size_t)k] * (double)job->l[(size_t)q * ld + (size_t)k];
            h[(size_t)i * ld + (size_t)j] = c[(size_t)i * ld + (size_t)j] = x;
        }
    }
    if ((rc = lower(c, n)) == RC_OK) {
        inverse(g, c, n);
        rc = lower(g, n);
    }
    mem_free(c);
    return rc;
}

/* Place of an element's scale. */
static size_t
scale_at(const struct gptq_job *job, int r, int c)
{
    size_t at = q_scale_index(job->spec, job->row0 + r, c, job->cols);

    return job->scale_col == NULL ? at : at - (size_t)q_scale_col(job->spec, c) + (size_t)job->scale_col[c];
}

/* One row; w and d have room for n values. d: what is lost of the target, if there is one. */
static void
round_row(struct gptq_job *job, const double *g, int r, double *w, double *d)
{
    const struct qspec *s = job->spec;
    int n = job->cols;
    size_t ld = (size_t)n;

    for (int i = 0; i < n; i++) {
        int c = job->order[n - 1 - i];

        w[i] = job->dead[c] ? 0 : (double)job->w[(size_t)r * ld + (size_t)c];
    }
    for (int i = 0; i < n; i++) {
        int c = job->order[n - 1 - i];
        size_t at = scale_at(job, r, c);
        float zero = job->zero != NULL ? job->zero[at] : 0, step = q_step(s, job->scale[at], job->global_scale);
        float k = q_round_loop(s, (float)w[i], step, zero), q = q_dequant_loop(s, k, step, zero);
        double e = (w[i] - (double)q) / g[(size_t)i * ld + (size_t)i];

        for (int j = i + 1; j < n; j++)
            if (!job->keep_zeros || f32_abs(job->w[(size_t)r * ld + (size_t)job->order[n - 1 - j]]) > Q_ZERO)
                w[j] -= e * g[(size_t)j * ld + (size_t)i];
        job->codes[(size_t)r * ld + (size_t)c] = q_code_loop(s, k, q, job->scale[at], job->global_scale, zero);
        job->loss += job->target == NULL ? e * e / 2 : 0;
        d[i] = job->dead[c] || job->target == NULL ? 0 : (double)(job->target[(size_t)r * ld + (size_t)c] - q);
    }
}

/* d H d' / 2 */
static double
row_loss(const double *h, const double *d, int n)
{
    double loss = 0;

    for (size_t i = 0; i < (size_t)n; i++)
        for (size_t j = 0; j < (size_t)n; j++)
            loss += d[i] * h[i * (size_t)n + j] * d[j] / 2;
    return loss;
}

/* What plain rounding loses, in which v10 plays no part; dead columns carry no error. */
static void
rtn_row(const struct gptq_job *job, int r, double *d)
{
    struct qspec spec = *job->spec, *s = &spec;
    int n = job->cols;
    size_t ld = (size_t)n;

    spec.v10 = 0;
    for (int i = 0; i < n; i++) {
        int c = job->order[n - 1 - i];
        size_t at = scale_at(job, r, c);
        float zero = job->zero != NULL ? job->zero[at] : 0, step = q_step(s, job->scale[at], job->global_scale);
        float w = job->w[(size_t)r * ld + (size_t)c], to = job->target != NULL ? job->target[(size_t)r * ld +
            (size_t)c] : w;

        d[i] = job->dead[c] ? 0 : (double)(to - q_dequant_loop(s, q_round(s, w, step, zero), step, zero));
    }
}

int
ref_gptq(struct dev *dev, struct gptq_job *job)
{
    size_t n = (size_t)job->cols;
    double *h = mem_alloc(n * n, sizeof(*h)), *g = mem_alloc(n * n, sizeof(*g)), *w = mem_alloc(2 * n, sizeof(*w));
    int rc = RC_OS;

    (void)dev;
    job->loss = job->rtn_loss = 0;
    if (h == NULL || g == NULL || w == NULL || (rc = textbook(h, g, job)) != RC_OK)
        goto out;
    for (int r = 0; r < job->rows; r++) {
        round_row(job, g, r, w, w + n);
        if (job->target != NULL)
            job->loss += row_loss(h, w + n, job->cols);
        if (job->want_rtn) {
            rtn_row(job, r, w);
            job->rtn_loss += row_loss(h, w, job->cols);
        }
    }
    if (!isfinite(job->loss) || !isfinite(job->rtn_loss))
        rc = err_set(RC_NUMERIC, "loss is not finite");
out:
    mem_free(h);
    mem_free(g);
    mem_free(w);
    return rc;
}
