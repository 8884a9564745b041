// One pocket calculator; the plain definitions are in Python, in native/calculator.py.
#pragma once

#include <algorithm>
#include <cstdint>

namespace calculator {

constexpr int64_t HALF = 10000, LIMIT = HALF * HALF;  // a value has at most eight digits
constexpr int64_t BITS = 7, PLACES = 9;               // of a token in a display word; tokens of a display

// The bits of a word of `rules`, as in native/calculator.py.
constexpr int64_t DIGIT = 15, CELL = 4, RECALLS = 1 << 8, JOINS = 1 << 9, TYPES = 1 << 10, OPERATES = 1 << 11,
                  STORES = 1 << 12, MODE = 16;
constexpr int64_t DONE = 13, ANSWERS = 14, INVALID = 15;       // the number of the bit
constexpr int64_t PENDING = 4, MULTIPLIES = 1, SUBTRACTS = 3;  // the operator in a mode, from bit 4 on

struct Registers {
    int64_t mode, entry, accumulator, value;
};

struct Verdicts {
    uint8_t done, success, invalid;
};

// The registers after a key. `held` are the `memories` cells before it, `after` those after it; they may be the same.
template <typename Count>
inline Registers press(const int32_t* rules, int64_t modes, int64_t keys, Count memories, int64_t key,
                       const Registers r, int64_t target, const int64_t* held, int64_t* after, Verdicts& verdicts) {
    // Loads come first and are unconditional, or compilers branch.
    int64_t row = key + r.mode * keys;
    const int64_t pressed = rules[row], cell = memories == 1 ? 0 : pressed >> CELL & 15, recalled = held[cell];
    const int64_t digit = (pressed & DIGIT) + (pressed & JOINS ? 10 * r.entry : 0);
    const int64_t typed = pressed & RECALLS ? recalled : digit;
    const int64_t pending = r.mode >> PENDING & 3, operand = pending ? r.accumulator : 0;
    const int64_t sum = pending == SUBTRACTS ? operand - typed : operand + typed;
    const int64_t result = pending == MULTIPLIES ? operand * typed : sum;
    row += (result >= LIMIT) | (result <= -LIMIT) ? modes * keys : 0;
    const int64_t word = rules[row], value = word & TYPES ? result : r.value;
    for (int64_t k = 0; k < memories; k++)
        after[k] = (word & STORES) && (memories == 1 || k == cell) ? r.value : held[k];
    verdicts.done = word >> DONE & 1;
    verdicts.success = (word >> ANSWERS & 1) & (value == target);
    verdicts.invalid = word >> INVALID & 1;
    return {word >> MODE, word & TYPES ? typed : r.entry, word & OPERATES ? r.value : r.accumulator, value};
}

// The display of a value, [PLACES]; `upper` and `lower` are the tables of its two halves.
inline void display(const int64_t* upper, const int64_t* lower, int64_t value, int64_t* shown) {
    const uint32_t size = value < 0 ? -value : value, high = size / HALF;
    const int64_t skipped = std::clamp<int64_t>(int64_t{high} - 1, 0, HALF - 2);
    const int64_t word = upper[value < 0 ? high + HALF + 1 : high] | lower[size - HALF * skipped];
#pragma GCC unroll 1  // or an outer loop is vectorized, with stores of single numbers
    for (int64_t place = 0; place < PLACES; place++) shown[place] = word >> BITS * place & 127;
}

}  // namespace calculator
