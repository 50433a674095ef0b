/* softlogit.h - all of libsoftlogit. */
#ifndef SOFTLOGIT_SOFTLOGIT_H
#define SOFTLOGIT_SOFTLOGIT_H

#include "softlogit/attention.h"
#include "softlogit/attention_cache.h"
#include "softlogit/bandit.h"
#include "softlogit/core.h"
#include "softlogit/diffusion.h"
#include "softlogit/distill.h"
#include "softlogit/hinge.h"
#include "softlogit/dual_head.h"
#include "softlogit/layer.h"
#include "softlogit/linear_attention.h"
#include "softlogit/loss.h"
#include "softlogit/mdp.h"
#include "softlogit/moe.h"
#include "softlogit/online.h"
#include "softlogit/optimizer.h"
#include "softlogit/schedule.h"
#include "softlogit/ordinal.h"
#include "softlogit/reward.h"
#include "softlogit/robust.h"
#include "softlogit/regression.h"
#include "softlogit/separation.h"
#include "softlogit/softmax.h"
#include "softlogit/solver.h"
#include "softlogit/tempnet.h"
#include "softlogit/spherical.h"
#include "softlogit/utility.h"
#include "softlogit/stablemax.h"
#include "softlogit/surrogate.h"

#endif
