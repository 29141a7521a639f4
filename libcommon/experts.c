/* experts - what the router of a layer did, for the log and for whoever watches */
#include "experts.h"

#include "buf.h"
#include "msg.h"

#include <stdio.h>

int
experts_report(struct run *run, const struct fwd *f, int step)
{
    const int64_t *n = f->route.tokens;
    int few = 0, silent = 0, layer = run->plan.steps[step].layer;
    struct buf list = { 0 };
    char name[32];

    if (n == NULL) /* a rank without blocks */
        return RC_OK;
    for (int e = 0; e < run->arch.experts; e++) {
        buf_printf(&list, "%s%lld", e > 0 ? " " : "", (long long)n[e]);
        few += n[e] < run->plan.expert_tokens;
        silent += n[e] == 0;
    }
    if (!buf_ok(&list)) {
        buf_free(&list);
        return RC_OS;
    }
    event_emit(&run->log, "experts", EVENT_INT("step", step), EVENT_INT("layer", layer), EVENT_STR("tokens", list.s),
        EVENT_INT("few", few), EVENT_INT("silent", silent));
    buf_free(&list);
    (void)snprintf(name, sizeof(name), "layer %d", layer);
    if (few > 0 && run->plan.experts == EXPERTS_ROUTED && run->ranks == 1)
        msg_warn(name, "%d of %d experts saw fewer than %d tokens, %d of them none: rounded plainly", few,
            run->arch.experts, run->plan.expert_tokens, silent);
    return RC_OK;
}
