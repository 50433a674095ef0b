/* NKD and USKD: make_nkd-uskd.py says what each name means. */
#include "golden/adapter.h"

static void nkd(run *g)
{
    static const int32_t index_types[] = { SLG_I32, SLG_I64 };
    for (int i = 0; i < 2; i++) {
        slg_logits student, teacher;
        slg_targets t;
        slg_nkd_opts o;
        slg_loss_out out;
        slg_logits_grad d;
        variation(g, i ? "with gradient" : "value alone");
        slg_logits_init(&student, sizeof student), slg_logits_init(&teacher, sizeof teacher);
        slg_targets_init(&t, sizeof t), slg_loss_out_init(&out, sizeof out);
        slg_nkd_opts_init(&o, sizeof o), slg_logits_grad_init(&d, sizeof d);
        student.dense = input(g, "student", SLG_F32);
        teacher.dense = input(g, "teacher", SLG_F32);
        t.index = input(g, "targets", index_types[i]), t.teacher = &teacher;
        o.reduction = SLG_SUM; /* gradients are of each row's own loss */
        o.temperature = scalar_or(g, "temperature", o.temperature);
        o.gamma = scalar_or(g, "gamma", o.gamma);
        o.target_loss = output_for(g, "target_loss", SLG_F32);
        o.other_loss = output_for(g, "other_loss", SLG_F32);
        if (i) d.dlogits = output_over(g, (slg_tensor *)student.dense);
        check(g, slg_nkd(g->ctx, &student, &t, &o, &out, i ? &d : NULL));
        expect(g, "target_loss", o.target_loss);
        expect(g, "other_loss", o.other_loss);
        expect(g, "grad", d.dlogits);
    }
}

const adapter adapt_nkd_uskd[] = { { "nkd", nkd }, { NULL, NULL } };
