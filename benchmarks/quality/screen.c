/* Looks for correlations within masks and between them, of all kinds that a model sees.

       cc -O3 -march=native -o screen screen.c -lm
       ./screen [SEED [ROUNDS]]

   prints, for each group of tests and each rate, the largest of its z-scores, and the
   sum of their squares as a z-score ("all"). Scores beyond 4 have a line of their own:
   without a fault, one of 15,800 is. */
#include <stdlib.h>
#include <string.h>

#include "bits.h"

#define N 4096
#define RING 64
#define LARGE (1 << 20)
#define PARITY (1 << 16)

static int64_t base;

/* One of many seeds without a pattern. */
static int64_t seed_of(uint64_t i) { return (int64_t)mix(mix((uint64_t)base) + i); }

/* Pairs of elements of one mask. */
static void neighbours(const setting *set, int masks) {
    static uint32_t h[2 * LARGE];
    static uint64_t bits[2 * LARGE / 64 + 1];
    static double sums[200];
    static int distances[200];
    int count = 0, widths[] = {28, 32, 56, 224}, channels[] = {1, 3, 16, 64, 128, 512};
    for (int d = 1; d <= 64; d++) distances[count++] = d;
    for (int d = 128; d <= LARGE; d *= 2) distances[count++] = d;
    for (int w = 0; w < 4; w++)
        for (int c = 0; c < 6; c++) {
            int d = widths[w] * channels[c];
            if (d > 64 && d & (d - 1)) distances[count++] = d;
        }
    memset(sums, 0, sizeof sums);
    double squares = 0;
    for (int m = 0; m < masks; m++) {
        fill(h, 2 * LARGE, seed_of(m), m, 0, set->rounds);
        pack(bits, h, 2 * LARGE, set->threshold, NULL);
        for (int i = 0; i < count; i++)
            sums[i] += covariance(bits, bits, distances[i], LARGE, set->keep);
        double excess = (double)ones(bits, 2 * LARGE) - 2 * LARGE * set->keep;
        squares += excess * excess;
    }
    group g = {.name = "neighbours", .set = set};
    for (int i = 0; i < count; i++)
        score(&g, sums[i] / deviation((double)LARGE * masks, set->keep), "distance %d",
              distances[i]);
    score(&g, variance_score(squares, masks, 2 * LARGE, set->keep), "variance");
    report(&g);
}

/* Elements of one mask far apart: by powers of two and thrice these; by Fibonacci
   numbers, which WEYL makes small; by 2^k / WEYL, which it makes a power of two. */
static void far_apart(const setting *set, int masks) {
    static uint32_t h[LARGE];
    static uint64_t here[LARGE / 64 + 1], there[LARGE / 64 + 1];
    uint32_t distances[200], inverse = 1;
    int count = 0;
    /* Newton's iteration, modulo 2^32. */
    for (int i = 0; i < 5; i++) inverse *= 2 - WEYL * inverse;
    for (int k = 0; k < 32; k++) distances[count++] = inverse << k;
    for (int k = 20; k < 32; k++) distances[count++] = 1u << k;
    for (int k = 20; k < 31; k++) distances[count++] = 3u << k;
    for (uint32_t a = 89, b = 144; b > a; b += a, a = b - a) distances[count++] = a;
    group g = {.name = "far apart", .set = set};
    for (int i = 0; i < count; i++) {
        double sum = 0;
        for (int m = 0; m < masks; m++) {
            /* Of one block, as if its numbers went round. */
            uint64_t key = mix((uint64_t)seed_of(m));
            fill_block(h, LARGE, 0, key, set->rounds);
            pack(here, h, LARGE, set->threshold, NULL);
            fill_block(h, LARGE, distances[i], key, set->rounds);
            pack(there, h, LARGE, set->threshold, NULL);
            sum += covariance(here, there, 0, LARGE, set->keep);
        }
        score(&g, sum / deviation((double)LARGE * masks, set->keep), "distance %u",
              distances[i]);
    }
    report(&g);
}

/* The masks of a family, one after the other. */
enum { STEPS, LATE_STEPS, SEEDS, NEGATIVE_SEEDS, HUGE_SEEDS, HIGH_SEEDS, DIAGONAL,
       REPLICAS, BLOCKS, LATE_BLOCKS, FAMILIES };
static const char *families[] = {
    "steps", "steps from 2^40", "seeds", "seeds below 0", "seeds from 2^62",
    "seeds, steps of 2^32", "seed = step", "two replicas", "blocks", "blocks from 2^30"};

static void fill_member(uint32_t *h, int family, int64_t i, int rounds) {
    int64_t s0 = base, s1 = 0;
    uint64_t block = 0;
    switch (family) {
        case STEPS: s1 = i; break;
        case LATE_STEPS: s1 = (1ll << 40) + i; break;
        case SEEDS: s0 = i; break;
        case NEGATIVE_SEEDS: s0 = -i, s1 = base; break;
        case HUGE_SEEDS: s0 = (1ll << 62) + i, s1 = base; break;
        case HIGH_SEEDS: s0 = base + (i << 32); break;
        case DIAGONAL: s0 = s1 = base + i; break;
        case REPLICAS: s0 = fold_in(base, i / 2), s1 = i % 2; break;
        case BLOCKS: block = i; break;
        case LATE_BLOCKS: block = (1ull << 30) + i; break;
    }
    fill(h, N, s0, s1, (block << 32) + 12345, rounds);
}

static const int lags[] = {1, 2, 3, 4, 8, 16, 32};
static const int shifts[] = {-2, -1, 0, 1, 2};

/* The sums that `family` takes the scores from. */
typedef struct {
    double pairs[7][5], counts, squares[3];
    uint32_t kept[N];
} family_sums;

static void add_member(family_sums *sums, uint64_t ring[RING][N / 64 + 2], int64_t i,
                       double keep) {
    static double before;
    const size_t sizes[] = {64, 1024, N};
    const uint64_t *here = ring[i % RING];
    double excess = 0;
    for (int s = 0; s < 3; s++) {
        excess = (double)ones(here, sizes[s]) - (double)sizes[s] * keep;
        sums->squares[s] += excess * excess;
    }
    if (i) sums->counts += excess * before;
    before = excess;
    for (int l = 0; l < 7 && lags[l] <= i; l++)
        for (int s = 0; s < 5; s++) {
            const uint64_t *other = ring[(i - lags[l]) % RING];
            int d = shifts[s];
            /* 64 elements fewer, since the other is shifted. */
            sums->pairs[l][s] += d < 0 ? covariance(other, here, -d, N - 64, keep)
                                       : covariance(here, other, d, N - 64, keep);
        }
}

static void family(const setting *set, int kind, int masks) {
    static uint32_t h[N];
    static uint64_t ring[RING][N / 64 + 2];
    static family_sums sums;
    const double n = N, keep = set->keep;
    memset(&sums, 0, sizeof sums);
    for (int i = 0; i < masks; i++) {
        fill_member(h, kind, i, set->rounds);
        pack(ring[i % RING], h, N, set->threshold, sums.kept);
        add_member(&sums, ring, i, keep);
    }
    group g = {.name = families[kind], .set = set};
    for (int l = 0; l < 7; l++)
        for (int s = 0; s < 5; s++)
            score(&g, sums.pairs[l][s] / deviation((n - 64) * (masks - lags[l]), keep),
                  "lag %d, element %+d", lags[l], shifts[s]);
    score(&g, sums.counts / (n * keep * (1 - keep) * sqrt(masks - 1)), "number kept");
    score(&g, variance_score(sums.squares[0], masks, 64, keep), "variance of 64");
    score(&g, variance_score(sums.squares[1], masks, 1024, keep), "variance of 1024");
    score(&g, variance_score(sums.squares[2], masks, n, keep), "variance of all");
    double squares = 0, total = 0;
    for (int i = 0; i < N; i++) {
        double excess = sums.kept[i] - masks * keep;
        squares += excess * excess, total += excess;
    }
    score(&g, total / sqrt(n * masks * keep * (1 - keep)), "mean");
    score(&g, variance_score(squares, n, masks, keep), "elements' frequencies");
    report(&g);
}

/* Masks whose seed pairs, or whose keys themselves, differ in one bit. */
static void one_bit(const setting *set, int masks, int of_keys) {
    static uint32_t h[2][N];
    static uint64_t bits[2][N / 64 + 2];
    group g = {.name = of_keys ? "keys, one bit" : "seeds, one bit", .set = set};
    for (int bit = 0; bit < (of_keys ? 64 : 128); bit++) {
        double sums[5] = {0};
        uint64_t flip0 = bit < 64 ? 1ull << bit : 0, flip1 = bit < 64 ? 0 : 1ull << (bit - 64);
        for (int m = 0; m < masks; m++) {
            int64_t s0 = seed_of(2 * m), s1 = seed_of(2 * m + 1);
            for (int k = 0; k < 2; k++) {
                uint64_t key = (uint64_t)s0 ^ (k ? flip0 : 0);
                if (!of_keys) key = key_of((int64_t)key, s1 ^ (int64_t)(k ? flip1 : 0), 0);
                fill_block(h[k], N, 0, key, set->rounds);
                pack(bits[k], h[k], N, set->threshold, NULL);
            }
            for (int s = 0; s < 5; s++) {
                int d = shifts[s];
                sums[s] += d < 0 ? covariance(bits[1], bits[0], -d, N - 64, set->keep)
                                 : covariance(bits[0], bits[1], d, N - 64, set->keep);
            }
        }
        for (int s = 0; s < 5; s++) {
            /* The low bits of k0 move the mask by as many elements. */
            if (of_keys && bit < 2) continue;
            score(&g, sums[s] / deviation((N - 64.0) * masks, set->keep),
                  "bit %d, element %+d", bit, shifts[s]);
        }
    }
    report(&g);
}

/* n less twice the number of odd parities of an element and of those that a, b and c see
   in its place; a view of zeros leaves one out. */
static double parity(const uint64_t *bits, view a, view b, view c, size_t n) {
    uint64_t odd = 0;
    for (size_t i = 0; i < n / 64; i++)
        odd += __builtin_popcountll(bits[i] ^ word_of(a, i) ^ word_of(b, i) ^
                                    word_of(c, i));
    return (double)n - 2.0 * (double)odd;
}

/* The parity of three and of four elements of one mask. */
static void parities(const setting *set, int masks) {
    static uint32_t h[4 * PARITY];
    static uint64_t bits[4 * PARITY / 64 + 1], zeros[PARITY / 64 + 1];
    static double threes[65][65], fours[64][64];
    int steps[64] = {28, 56, 84, 96, 168, 224, 784, 3584, 7168, 14336}, count = 10;
    for (int a = 1; a <= 16; a++) steps[count++] = a;
    for (int a = 32; a <= PARITY; a *= 2) steps[count++] = a;
    for (int m = 0; m < masks; m++) {
        fill(h, 4 * PARITY, seed_of(m), 7, 0, set->rounds);
        pack(bits, h, 4 * PARITY, set->threshold, NULL);
        for (int b = 2; b <= 64; b++)
            for (int a = 1; a < b; a++)
                threes[a][b] += parity(bits, from(bits, a), from(bits, b),
                                       from(zeros, 0), PARITY);
        for (int b = 1; b < count; b++)
            for (int a = 0; a < b; a++)
                fours[a][b] += parity(bits, from(bits, steps[a]), from(bits, steps[b]),
                                      from(bits, steps[a] + steps[b]), PARITY);
    }
    group g = {.name = "parity of three", .set = set};
    for (int b = 2; b <= 64; b++)
        for (int a = 1; a < b; a++)
            score(&g, threes[a][b] / sqrt((double)PARITY * masks), "0, %d, %d", a, b);
    report(&g);
    group f = {.name = "parity of four", .set = set};
    for (int b = 1; b < count; b++)
        for (int a = 0; a < b; a++)
            score(&f, fours[a][b] / sqrt((double)PARITY * masks),
                  "0, a, b, a + b: %d, %d", steps[a], steps[b]);
    report(&f);
}

int main(int argc, char **argv) {
    base = argc > 1 ? strtoll(argv[1], NULL, 10) : 0;
    int rounds = argc > 2 ? atoi(argv[2]) : 4;
    const double rates[] = {.01, .1, .5, .9, .999};
    setting half = setting_of(.5, rounds);
    parities(&half, 1 << 13);
    for (int r = 0; r < 5; r++) {
        setting set = setting_of(rates[r], rounds);
        neighbours(&set, 1024);
        far_apart(&set, 64);
        for (int kind = 0; kind < FAMILIES; kind++) family(&set, kind, 1 << 17);
        one_bit(&set, 1 << 11, 0);
        one_bit(&set, 1 << 11, 1);
    }
}
