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
        for (int c = 0; c < 6; c++) distances[count++] = widths[w] * channels[c];
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

/* The parity of three and of four elements of one mask. */
static void parities(const setting *set, int masks) {
    static uint32_t h[4 * PARITY];
    static uint64_t bits[4 * PARITY / 64 + 1];
    static double triples[65][65], fours[64][64];
    int steps[64], count = 0;
    for (int a = 1; a <= 16; a++) steps[count++] = a;
    for (int a = 32; a <= PARITY; a *= 2) steps[count++] = a;
    const int others[] = {28, 56, 84, 96, 168, 224, 784, 3584, 7168, 14336};
    for (int i = 0; i < 10; i++) steps[count++] = others[i];
    for (int m = 0; m < masks; m++) {
        fill(h, 4 * PARITY, seed_of(m), 7, 0, set->rounds);
        pack(bits, h, 4 * PARITY, set->threshold, NULL);
        for (int b = 2; b <= 64; b++)
            for (int a = 1; a < b; a++) {
                uint64_t odd = 0;
                for (size_t i = 0; i < PARITY; i += 64)
                    odd += __builtin_popcountll(bits[i / 64] ^ word_at(bits, i + a) ^
                                                word_at(bits, i + b));
                triples[a][b] += PARITY - 2.0 * odd;
            }
        for (int b = 1; b < count; b++)
            for (int a = 0; a < b; a++) {
                uint64_t odd = 0;
                int x = steps[a], y = steps[b];
                for (size_t i = 0; i < PARITY; i += 64)
                    odd += __builtin_popcountll(bits[i / 64] ^ word_at(bits, i + x) ^
                                                word_at(bits, i + y) ^
                                                word_at(bits, i + x + y));
                fours[a][b] += PARITY - 2.0 * odd;
            }
    }
    group g = {.name = "parity of three", .set = set};
    for (int b = 2; b <= 64; b++)
        for (int a = 1; a < b; a++)
            score(&g, triples[a][b] / sqrt((double)PARITY * masks), "0, %d, %d", a, b);
    report(&g);
    group f = {.name = "parity of four", .set = set};
    for (int b = 1; b < count; b++)
        for (int a = 0; a < b; a++)
            score(&f, fours[a][b] / sqrt((double)PARITY * masks), "0, a, b, a + b: %d, %d",
                  steps[a], steps[b]);
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
        for (int kind = 0; kind < FAMILIES; kind++) family(&set, kind, 1 << 17);
        one_bit(&set, 1 << 11, 0);
        one_bit(&set, 1 << 11, 1);
    }
}
