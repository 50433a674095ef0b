/*
 * rng.h - random numbers as a function of a counter: see slg_rng in softlogit/core.h. No state,
 * so any task may draw any number, and results do not depend on who draws it.
 */
#ifndef SLG_CORE_RNG_H
#define SLG_CORE_RNG_H

#include <stdint.h>

#include "softlogit/core.h"

/* Ten rounds of Philox-4x32. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Number `index` of the stream of a seed: 64 random bits. */
uint64_t rng_number(uint64_t seed, uint64_t index);

/* Numbers first to first + n - 1, at half of the cost each. */
void rng_numbers(uint64_t seed, uint64_t first, int64_t n, uint64_t *out);

/* The same as a number in (0, 1), both ends left out; and by the other distributions. */
double rng_uniform(uint64_t seed, uint64_t index);
double rng_normal(uint64_t seed, uint64_t index);
double rng_gumbel(uint64_t seed, uint64_t index);

/* Brings `count` of the n items, drawn without replacement, to the front, in the order drawn:
   count swaps by numbers offset to offset + count - 1. count = n: a permutation. */
void rng_draw_rows(uint64_t seed, uint64_t offset, int64_t n, int64_t count, int64_t *items);

#endif
