/* The masks of keras_sparseout/utils/counter_hash.py in C, with any number of rounds.

   check.py compares them with it, bit by bit. */
#ifndef MASKS_H
#define MASKS_H

#include <stddef.h>
#include <stdint.h>

#define GAMMA 0x9E3779B97F4A7C15ull
#define WEYL 0x9E3779B1u
#define BLOCK_STEP 0xB504F335u

static inline uint64_t mix(uint64_t z) {
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ z >> 27) * 0x94D049BB133111EBull;
    return z ^ z >> 31;
}

/* k0 in the low half, k1 of the block in the high one. */
static inline uint64_t key_of(int64_t s0, int64_t s1, uint64_t block) {
    uint64_t step = (uint32_t)block * BLOCK_STEP;
    return mix(mix((uint64_t)s0 + GAMMA) ^ (uint64_t)s1) ^ step << 32;
}

/* The multiplication by WEYL is the first round: `rounds` is from 2 to 4. */
static inline uint32_t scramble(uint32_t l, uint64_t key, int rounds) {
    uint32_t h = (l + (uint32_t)key) * WEYL;
    h = (h ^ h >> 17 ^ (uint32_t)(key >> 32)) * 0xED5AD4BBu;
    if (rounds > 2) h = (h ^ h >> 11) * 0xAC4C1B51u;
    if (rounds > 3) h = (h ^ h >> 15) * 0x31848BABu;
    return h;
}

/* Hashes the numbers l, l + 1, ... of one block with its key. */
static inline void fill_block(uint32_t *h, size_t n, uint32_t l, uint64_t key,
                              int rounds) {
    /* Three loops, so that each can be vectorized. */
    if (rounds == 4)
        for (size_t i = 0; i < n; i++) h[i] = scramble(l + (uint32_t)i, key, 4);
    else if (rounds == 3)
        for (size_t i = 0; i < n; i++) h[i] = scramble(l + (uint32_t)i, key, 3);
    else
        for (size_t i = 0; i < n; i++) h[i] = scramble(l + (uint32_t)i, key, 2);
}

/* The 32 bits of n elements from the number `offset` on. */
static inline void fill(uint32_t *h, size_t n, int64_t s0, int64_t s1,
                        uint64_t offset, int rounds) {
    while (n) {
        uint64_t left = (1ull << 32) - (uint32_t)offset;
        size_t m = n < left ? n : (size_t)left;
        fill_block(h, m, (uint32_t)offset, key_of(s0, s1, offset >> 32), rounds);
        h += m, n -= m, offset += m;
    }
}

static inline void philox(uint32_t c[4], uint32_t k0, uint32_t k1) {
    for (int round = 0; round < 10; round++) {
        uint64_t a = 0xD2511F53ull * c[0], b = 0xCD9E8D57ull * c[2];
        uint32_t c1 = c[1], c3 = c[3];
        c[0] = (uint32_t)(b >> 32) ^ c1 ^ k0, c[1] = (uint32_t)b;
        c[2] = (uint32_t)(a >> 32) ^ c3 ^ k1, c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
}

/* The first number of tf.random.experimental.stateless_fold_in(seed, replica,
   alg="philox"); the second is the replica. */
static inline int64_t fold_in(int64_t s0, int64_t s1) {
    uint32_t c[4] = {(uint32_t)s0, (uint32_t)((uint64_t)s0 >> 32), (uint32_t)s1,
                     (uint32_t)((uint64_t)s1 >> 32)};
    philox(c, 0x3EC8F720u, 0x02461E29u);
    uint32_t counter[4] = {0, 0, c[2], c[3]};
    philox(counter, c[0], c[1]);
    return (int64_t)((uint64_t)counter[1] << 32 | counter[0]);
}

#endif
