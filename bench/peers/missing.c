/*
 * missing.c - who could not take part, and why: each said once.
 */
#include <string.h>

#include "race.h"

enum { MOST = 16 };
static struct {
    char name[32], why[192];
} missing[MOST];
static int count;
static bool printed;

/* "torch-kernels" and "torch" are one peer. Said at once where the header has been printed. */
void missing_add(const char *name, const char *why)
{
    size_t n = strcspn(name, "-");
    for (int i = 0; i < count; i++)
        if (!strncmp(missing[i].name, name, n) && !missing[i].name[n]) return;
    if (count == MOST) return;
    snprintf(missing[count].name, sizeof missing->name, "%.*s", (int)n, name);
    snprintf(missing[count].why, sizeof missing->why, "%s", why);
    if (printed) printf("missing: %s: %s\n", missing[count].name, why);
    count++;
}

void missing_print(void)
{
    for (int i = 0; i < count; i++)
        printf("missing: %s: %s\n", missing[i].name, missing[i].why);
}
