/* What shows that the words of one mask never repeat within a block of 2^32 elements.

       cc -O3 -march=native -o one_mask one_mask.c -lm
       ./one_mask

   prints how many of the first n words repeat one before them, beside the number that
   independent words would; the variance of the number of elements kept, as a multiple
   of that of independent elements; and how many of 2^32 elements are kept. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "masks.h"

#define CHUNK 4096

static int compare(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void repeats(size_t n) {
    uint32_t *h = malloc(n * sizeof *h);
    int count = 0;
    fill(h, n, 1, 0, 0, 4);
    qsort(h, n, sizeof *h, compare);
    for (size_t i = 1; i < n; i++) count += h[i] == h[i - 1];
    double expected = (double)n * (double)n / 8589934592.0;
    printf("%8zu words: %d repeats; independent %.3g, none with probability %.2g\n", n,
           count, expected, exp(-expected));
    free(h);
}

static uint64_t kept(uint64_t n, int64_t seed, uint32_t threshold) {
    uint32_t h[CHUNK];
    uint64_t sum = 0;
    for (uint64_t first = 0; first < n; first += CHUNK) {
        uint32_t part = 0;
        fill(h, CHUNK, seed, 0, first, 4);
        for (int i = 0; i < CHUNK; i++) part += h[i] >= threshold;
        sum += part;
    }
    return sum;
}

static void variance(int log_n, int masks) {
    double n = pow(2, log_n), squares = 0;
    for (int m = 0; m < masks; m++) {
        double excess = (double)kept(1ull << log_n, 1000 + m, 1u << 31) - n / 2;
        squares += excess * excess;
    }
    double ratio = squares / (masks * n / 4);
    printf("2^%d elements, %d masks at rate .5: variance %.3f +- %.3f of n / 4; "
           "1 - n / 2^32 = %.3f\n",
           log_n, masks, ratio, ratio * sqrt(2.0 / masks), 1 - n / 4294967296.0);
    fflush(stdout);
}

int main(void) {
    for (size_t n = 1 << 16; n <= 1 << 21; n *= 2) repeats(n);
    const uint32_t thresholds[] = {1, 429496730, 1u << 31, 4252017623};
    for (int t = 0; t < 4; t++)
        printf("2^32 elements, threshold %u: %llu kept, all but %llu\n", thresholds[t],
               (unsigned long long)kept(1ull << 32, 1, thresholds[t]),
               (1ull << 32) - (unsigned long long)kept(1ull << 32, 2, thresholds[t]));
    variance(20, 4096);
    variance(26, 256);
    variance(28, 64);
    variance(30, 32);
    variance(31, 32);
}
