/* Runs a battery of TestU01 on the 32-bit words that come from stdin.

       cc -O2 -o battery battery.c -ltestu01 -ltestu01probdist -ltestu01mylib -lm
       ./streams steps 64 | ./battery SmallCrush
       ./streams steps 64 | ./battery Rabbit 30

   SmallCrush, Crush, BigCrush; Rabbit and Alphabit with the logarithm of the number of
   bits. Of the whole report only the summary is printed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <testu01/bbattery.h>
#include <testu01/swrite.h>
#include <testu01/unif01.h>

static unsigned int next_word(void) {
    static unsigned int words[16384];
    static size_t read, used;
    if (used == read) {
        used = 0, read = fread(words, sizeof *words, 16384, stdin);
        if (!read) {
            fprintf(stderr, "The stream has ended.\n");
            exit(1);
        }
    }
    return words[used++];
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    double bits = pow(2, argc > 2 ? atof(argv[2]) : 30);
    unif01_Gen *gen = unif01_CreateExternGenBits("stdin", next_word);
    swrite_Basic = FALSE;
    if (!strcmp(name, "SmallCrush"))
        bbattery_SmallCrush(gen);
    else if (!strcmp(name, "Crush"))
        bbattery_Crush(gen);
    else if (!strcmp(name, "BigCrush"))
        bbattery_BigCrush(gen);
    else if (!strcmp(name, "Rabbit"))
        bbattery_Rabbit(gen, bits);
    else if (!strcmp(name, "Alphabit"))
        bbattery_Alphabit(gen, bits, 0, 32);
    else {
        fprintf(stderr, "Which battery? Received: %s\n", name);
        return 1;
    }
    unif01_DeleteExternGenBits(gen);
    return 0;
}
