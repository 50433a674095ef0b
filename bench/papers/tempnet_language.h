/*
 * tempnet_language.h - the language half of the re-run of paper 35: a character model whose
 * logits are cosines, its temperature fixed or predicted by a network trained along with it.
 */
#ifndef PAPERS_TEMPNET_LANGUAGE_H
#define PAPERS_TEMPNET_LANGUAGE_H

#include "papers.h"

void tempnet_language(run_t *r);

#endif
