/* One line a slug, with _ for -: adapt_SLUG.c defines the table adapt_SLUG. */
SLUG(comp_sum)
SLUG(cross_entropy)
SLUG(optimizers)
SLUG(tempnet)
SLUG(two_pass_softmax)
SLUG(z_loss)
SLUG(softmax_regression)
SLUG(utility_probability)
