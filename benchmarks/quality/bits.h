/* Masks packed into 64-bit words, and the statistics of what they count. */
#ifndef BITS_H
#define BITS_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "masks.h"

/* What a mask is drawn with: it keeps each element with probability keep. */
typedef struct {
    double rate, keep;
    uint64_t threshold;
    int rounds;
} setting;

static setting setting_of(double rate, int rounds) {
    uint64_t threshold = (uint64_t)(rate * 4294967296.0 + .5);
    return (setting){rate, 1 - (double)threshold / 4294967296.0, threshold, rounds};
}

/* The z-scores of one group of tests; `mean` and `var` are what they are scored by. */
typedef struct {
    const char *name;
    const setting *set;
    int count;
    double squares, largest;
    char label[64];
} group;

__attribute__((format(printf, 3, 4)))
static void score(group *g, double z, const char *format, ...) {
    char label[64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(label, sizeof label, format, arguments);
    va_end(arguments);
    g->count++, g->squares += z * z;
    if (fabs(z) > 4)
        printf("  |z| > 4: %s, rate %g: %s, z = %+.2f\n", g->name, g->set->rate, label,
               z);
    if (fabs(z) > fabs(g->largest)) {
        g->largest = z;
        snprintf(g->label, sizeof g->label, "%s", label);
    }
}

/* The sum of m squares of normal numbers has the mean m and the variance 2 m. */
static void report(const group *g) {
    double all = (g->squares - g->count) / sqrt(2.0 * g->count);
    printf("%-22s rate %-5g %5d z, all: %+5.2f, largest %+.2f (%s)\n", g->name,
           g->set->rate, g->count, all, g->largest, g->label);
    fflush(stdout);
}

/* Packs n elements, a multiple of 64, and adds them to `counts` if that is given. */
static void pack(uint64_t *bits, const uint32_t *h, size_t n, uint64_t threshold,
                 uint32_t *counts) {
    for (size_t i = 0; i < n; i += 64) {
        uint64_t word = 0;
        for (int j = 0; j < 64; j++) word |= (uint64_t)(h[i + j] >= threshold) << j;
        bits[i / 64] = word;
    }
    if (counts)
        for (size_t i = 0; i < n; i++) counts[i] += h[i] >= threshold;
}

/* A mask from another element on. One word behind the last is read. */
typedef struct {
    const uint64_t *words;
    int shift;
} view;

static inline view from(const uint64_t *bits, size_t first) {
    return (view){bits + first / 64, first % 64};
}

static inline uint64_t word_of(view v, size_t i) {
    return v.words[i] >> v.shift | v.words[i + 1] << 1 << (63 - v.shift);
}

static uint64_t ones(const uint64_t *bits, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n / 64; i++) sum += __builtin_popcountll(bits[i]);
    return sum;
}

/* The sum of (a_i - keep)(b_(i + d) - keep) over n elements. */
static double covariance(const uint64_t *a, const uint64_t *b, size_t d, size_t n,
                         double keep) {
    uint64_t both = 0, either = 0;
    view other = from(b, d);
    for (size_t i = 0; i < n / 64; i++) {
        uint64_t left = a[i], right = word_of(other, i);
        both += __builtin_popcountll(left & right);
        either += __builtin_popcountll(left) + __builtin_popcountll(right);
    }
    return (double)both - keep * (double)either + (double)n * keep * keep;
}

/* The standard deviation of a sum of n products of that kind. */
static double deviation(double n, double keep) { return sqrt(n) * keep * (1 - keep); }

/* The score of `squares`, the sum of m squares of (number kept of n - n keep). */
static double variance_score(double squares, double m, double n, double keep) {
    double var = keep * (1 - keep);
    double excess = (1 - 6 * var) / (n * var);
    return (squares / (n * var) - m) / sqrt(m * (2 + excess));
}

#endif
