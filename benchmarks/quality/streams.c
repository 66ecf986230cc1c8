/* Writes an endless stream of random bits, of masks one after the other, to stdout.

       cc -O3 -march=native -o streams streams.c
       ./streams KIND [N [SEED [RATE [ROUNDS]]]] | dieharder -a -g 200

   KIND      which masks, of N elements each (default 65536)
     elements  one mask of the seed pair (SEED, 0), in parts of N elements
     steps     (SEED, 0), (SEED, 1), (SEED, 2), ...
     seeds     (SEED, 0), (SEED + 1, 0), (SEED + 2, 0), ...
     replicas  replica 0, then replica 1, of each of the steps
     blocks    the N elements around the start of block 1, 2, 3, ... of (SEED, 0)
   RATE      0: all 32 bits of each element; .5 (default): whether it is kept;
             else the first of the elements 2 i and 2 i + 1 if only one of them is
             kept: fair bits if the elements are independent (von Neumann's way)
   ROUNDS    4 (default), or 3 or 2 for comparison */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "masks.h"

#define WORDS 16384

static uint32_t out[WORDS];
static size_t bits_out;

static void put_word(uint32_t word) {
    out[bits_out / 32] = word;
    bits_out += 32;
    if (bits_out == 32 * WORDS) {
        if (fwrite(out, sizeof out, 1, stdout) != 1) exit(0);
        bits_out = 0;
    }
}

static void put_bit(uint32_t bit) {
    static uint32_t word;
    static int filled;
    word |= bit << filled;
    if (++filled == 32) {
        put_word(word);
        word = 0, filled = 0;
    }
}

static void put(const uint32_t *h, size_t n, double rate) {
    uint64_t threshold = (uint64_t)(rate * 4294967296.0 + .5);
    if (rate == 0)
        for (size_t i = 0; i < n; i++) put_word(h[i]);
    else if (rate == .5)
        for (size_t i = 0; i < n; i++) put_bit(h[i] >> 31);
    else
        for (size_t i = 0; i + 1 < n; i += 2) {
            int first = h[i] >= threshold, second = h[i + 1] >= threshold;
            if (first != second) put_bit((uint32_t)first);
        }
}

enum { ELEMENTS, STEPS, SEEDS, REPLICAS, BLOCKS, KINDS };
static const char *names[] = {"elements", "steps", "seeds", "replicas", "blocks"};

static inline void fill_mask(uint32_t *h, size_t n, int kind, int64_t seed, int64_t i,
                             int rounds) {
    int64_t s0 = seed, s1 = 0;
    uint64_t offset = 0;
    switch (kind) {
        case ELEMENTS: offset = (uint64_t)i * n; break;
        case STEPS: s1 = i; break;
        case SEEDS: s0 = seed + i; break;
        case REPLICAS: s0 = fold_in(seed, i / 2), s1 = i % 2; break;
        case BLOCKS: offset = ((uint64_t)(i + 1) << 32) - n / 2; break;
    }
    if (n == 1)
        *h = scramble((uint32_t)offset, key_of(s0, s1, offset >> 32), rounds);
    else
        fill(h, n, s0, s1, offset, rounds);
}

static int kind_of(const char *name) {
    for (int kind = 0; kind < KINDS; kind++)
        if (!strcmp(name, names[kind])) return kind;
    fprintf(stderr, "KIND must be one of those in streams.c. Received: %s\n", name);
    exit(1);
}

int main(int argc, char **argv) {
    int kind = kind_of(argc > 1 ? argv[1] : "");
    size_t n = argc > 2 ? strtoull(argv[2], NULL, 10) : 65536;
    int64_t seed = argc > 3 ? strtoll(argv[3], NULL, 10) : 0;
    double rate = argc > 4 ? atof(argv[4]) : .5;
    int rounds = argc > 5 ? atoi(argv[5]) : 4;
    uint32_t *h = malloc(n * sizeof *h);
    for (int64_t i = 0;; i++) {
        fill_mask(h, n, kind, seed, i, rounds);
        put(h, n, rate);
    }
}
