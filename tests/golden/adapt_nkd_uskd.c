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

static void uskd(run *g)
{
    static const int32_t index_types[] = { SLG_I32, SLG_I64 };
    for (int i = 0; i < 2; i++) {
        slg_logits student, weak;
        slg_targets t;
        slg_uskd_opts o;
        slg_loss_out out;
        slg_logits_grad d, dw;
        variation(g, i ? "with gradients" : "value alone");
        slg_logits_init(&student, sizeof student), slg_logits_init(&weak, sizeof weak);
        slg_targets_init(&t, sizeof t), slg_loss_out_init(&out, sizeof out);
        slg_uskd_opts_init(&o, sizeof o);
        slg_logits_grad_init(&d, sizeof d), slg_logits_grad_init(&dw, sizeof dw);
        student.dense = input(g, "logits", SLG_F32);
        weak.dense = input(g, "weak_logits", SLG_F32);
        t.index = input(g, "targets", index_types[i]), t.teacher = &weak;
        o.reduction = SLG_SUM;
        o.alpha = scalar_or(g, "alpha", o.alpha);
        o.beta = scalar_or(g, "beta", o.beta);
        o.mu = scalar_or(g, "mu", o.mu);
        o.smoothing = scalar_or(g, "smoothing", o.smoothing);
        o.target_loss = output_for(g, "target_loss", SLG_F32);
        o.other_loss = output_for(g, "other_loss", SLG_F32);
        o.weak_loss = output_for(g, "weak_loss", SLG_F32);
        o.soft_target = output_for(g, "soft_target", SLG_F32);
        o.rank = output_for(g, "rank", index_types[i]);
        if (i) d.dlogits = output_over(g, (slg_tensor *)student.dense);
        if (i) dw.dlogits = output_over(g, (slg_tensor *)weak.dense);
        check(g, slg_uskd(g->ctx, &student, &t, &o, &out, i ? &d : NULL, i ? &dw : NULL));
        expect(g, "target_loss", o.target_loss);
        expect(g, "other_loss", o.other_loss);
        expect(g, "weak_loss", o.weak_loss);
        expect(g, "soft_target", o.soft_target);
        expect(g, "rank", o.rank);
        expect(g, "grad_logits", d.dlogits);
        expect(g, "grad_weak", dw.dlogits);
    }
}

const adapter adapt_nkd_uskd[] = { { "nkd", nkd }, { "uskd", uskd }, { NULL, NULL } };
