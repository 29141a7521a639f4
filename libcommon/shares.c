/* shares - a limit of memory, shared between the stages of the pipelines that run on one machine */
#include "shares.h"

#include "model.h"
#include "msg.h"
#include "pool.h"
#include "source.h"

const char *const budget_stages[BUDGET_STAGES] = { "llmc-calib", "llmc-hessian", "llmc-gptq" };

static int
find(struct budget stage[BUDGET_STAGES], struct budget *all, struct budget_way *way, const struct budget_of *of,
    size_t limit)
{
    TRY(budget_choose_pipeline(all, way, of, limit));
    for (int i = 0; i < BUDGET_STAGES; i++)
        budget_stage(&stage[i], of, (enum budget_stage)i, way);
    return RC_OK;
}

int
shares_find(struct budget stage[BUDGET_STAGES], struct budget *all, struct budget_way *way, const char *dir,
    size_t memory, int pipelines, int threads)
{
    size_t limit = (memory > 0 ? memory : budget_limit("")) / (size_t)pipelines;
    struct model model = { 0 };
    struct plan plan;
    struct arch arch;
    int rc;

    if (threads == 0)
        threads = pool_cpus();
    TRY(plan_read(&plan, dir));
    if ((rc = model_open_header(&model, plan.model)) == RC_OK && (rc = source_arch(&arch, &model)) == RC_OK) {
        struct budget_of of = { &plan, &arch, -1, threads };

        if ((rc = find(stage, all, way, &of, limit)) != RC_OK)
            (void)err_at(rc, pipelines > 1 ? "a rank's three stages" : "the three stages");
    }
    model_close(&model);
    plan_free(&plan);
    return rc;
}
