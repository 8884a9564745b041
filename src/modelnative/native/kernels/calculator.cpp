// The pocket calculator; the plain definition of both operators is in Python, in native/calculator.py.

#include <algorithm>
#include <cstdint>

namespace {

constexpr int64_t HALF = 10000, LIMIT = HALF * HALF;  // a value has at most eight digits
constexpr int64_t BITS = 7, PLACES = 9;               // of a token in a display word; tokens of a display

// The bits of a word of `rules`, as in native/calculator.py.
constexpr int64_t DIGIT = 15, CELL = 4, RECALLS = 1 << 8, JOINS = 1 << 9, TYPES = 1 << 10, OPERATES = 1 << 11,
                  STORES = 1 << 12, MODE = 16;
constexpr int64_t DONE = 13, ANSWERS = 14, INVALID = 15;       // the number of the bit
constexpr int64_t PENDING = 4, MULTIPLIES = 1, SUBTRACTS = 3;  // the operator in a mode, from bit 4 on

}  // namespace

extern "C" {

// One key of each of n calculators, without branches. rules [2, modes, keys]; the registers and the action [n], the
// cells [n, memories]. Writes the registers mode, entry, accumulator and value [4, n], the cells [n, memories], and
// done, success and invalid [3, n].
void calculator_step(const int32_t* rules, int64_t modes, int64_t keys, int64_t n, int64_t memories,
                     const int64_t* mode, const int64_t* entry, const int64_t* accumulator, const int64_t* cells,
                     const int64_t* value, const int64_t* target, const int64_t* action, int64_t* registers,
                     int64_t* cells_after, uint8_t* verdicts) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t* held = cells + i * memories;
        int64_t row = action[i] + mode[i] * keys;
        const int64_t pressed = rules[row], cell = pressed >> CELL & 15;
        const int64_t digit = (pressed & DIGIT) + (pressed & JOINS ? 10 * entry[i] : 0);
        const int64_t typed = pressed & RECALLS ? held[cell] : digit;
        const int64_t pending = mode[i] >> PENDING & 3, left = pending ? accumulator[i] : 0;
        const int64_t sum = pending == SUBTRACTS ? left - typed : left + typed;
        const int64_t result = pending == MULTIPLIES ? left * typed : sum;
        row += (result >= LIMIT) | (result <= -LIMIT) ? modes * keys : 0;
        const int64_t key = rules[row], shown = key & TYPES ? result : value[i];
        registers[i] = key >> MODE;
        registers[n + i] = key & TYPES ? typed : entry[i];
        registers[2 * n + i] = key & OPERATES ? value[i] : accumulator[i];
        registers[3 * n + i] = shown;
        for (int64_t k = 0; k < memories; k++)
            cells_after[i * memories + k] = (key & STORES) && k == cell ? value[i] : held[k];
        verdicts[i] = key >> DONE & 1;
        verdicts[n + i] = (key >> ANSWERS & 1) & (shown == target[i]);
        verdicts[2 * n + i] = key >> INVALID & 1;
    }
}

// The display of n values, [n, PLACES], from the tables of the upper and of the lower four digits.
void calculator_display(const int64_t* upper, const int64_t* lower, const int64_t* value, int64_t n, int64_t* shown) {
    for (int64_t i = 0; i < n; i++) {
        const uint32_t size = value[i] < 0 ? -value[i] : value[i], high = size / HALF;
        const int64_t skipped = std::clamp<int64_t>(int64_t{high} - 1, 0, HALF - 2);
        const int64_t word = upper[value[i] < 0 ? high + HALF + 1 : high] | lower[size - HALF * skipped];
#pragma GCC unroll 1  // or the outer loop is vectorized, with stores of single numbers
        for (int64_t place = 0; place < PLACES; place++) shown[i * PLACES + place] = word >> BITS * place & 127;
    }
}

}  // extern "C"
