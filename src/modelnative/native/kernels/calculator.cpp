// The pocket calculator; the plain definition of both operators is in Python, in native/calculator.py.

#include <algorithm>
#include <cstdint>
#include <type_traits>

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

struct CalculatorStepCall {
    const int32_t* rules;                               // [2, modes, keys]
    const int64_t *mode, *entry, *accumulator, *cells;  // [n], but the cells [n, memories]
    const int64_t *value, *target, *action;             // [n]
    int64_t modes, keys, calculators, memories;
};

int64_t calculator_step_call_size() { return sizeof(CalculatorStepCall); }

// One key of each of n calculators. Writes the registers mode, entry, accumulator and value [4, n], the cells
// [n, memories], and done, success and invalid [3, n].
void calculator_step(const CalculatorStepCall* call, int64_t* registers, int64_t* cells_after, uint8_t* verdicts) {
    const CalculatorStepCall c = *call;
    const int64_t n = c.calculators;
    // With a constant number of memories the loop is vectorized, so that random keys cost no mispredicted branches.
    auto step = [=](auto count) {
        for (int64_t i = 0; i < n; i++) {
            // All loads come first and are unconditional, or compilers branch.
            const int64_t* held = c.cells + i * count;
            const int64_t state = c.mode[i], before = c.entry[i], left = c.accumulator[i], shown = c.value[i];
            int64_t row = c.action[i] + state * c.keys;
            const int64_t pressed = c.rules[row], cell = count == 1 ? 0 : pressed >> CELL & 15, recalled = held[cell];
            const int64_t digit = (pressed & DIGIT) + (pressed & JOINS ? 10 * before : 0);
            const int64_t typed = pressed & RECALLS ? recalled : digit;
            const int64_t pending = state >> PENDING & 3, operand = pending ? left : 0;
            const int64_t sum = pending == SUBTRACTS ? operand - typed : operand + typed;
            const int64_t result = pending == MULTIPLIES ? operand * typed : sum;
            row += (result >= LIMIT) | (result <= -LIMIT) ? c.modes * c.keys : 0;
            const int64_t key = c.rules[row], after = key & TYPES ? result : shown;
            registers[i] = key >> MODE;
            registers[n + i] = key & TYPES ? typed : before;
            registers[2 * n + i] = key & OPERATES ? shown : left;
            registers[3 * n + i] = after;
            for (int64_t k = 0; k < count; k++)
                cells_after[i * count + k] = (key & STORES) && (count == 1 || k == cell) ? shown : held[k];
            verdicts[i] = key >> DONE & 1;
            verdicts[n + i] = (key >> ANSWERS & 1) & (after == c.target[i]);
            verdicts[2 * n + i] = key >> INVALID & 1;
        }
    };
    if (c.memories == 1)
        step(std::integral_constant<int64_t, 1>{});
    else if (c.memories == 2)
        step(std::integral_constant<int64_t, 2>{});
    else
        step(c.memories);
}

struct CalculatorDisplayCall {
    const int64_t *upper, *lower, *value;  // tables of the upper and of the lower four digits, and n values
    int64_t calculators;
};

int64_t calculator_display_call_size() { return sizeof(CalculatorDisplayCall); }

// The display of n values, [n, PLACES].
void calculator_display(const CalculatorDisplayCall* call, int64_t* shown) {
    const auto [upper, lower, value, n] = *call;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t size = value[i] < 0 ? -value[i] : value[i], high = size / HALF;
        const int64_t skipped = std::clamp<int64_t>(int64_t{high} - 1, 0, HALF - 2);
        const int64_t word = upper[value[i] < 0 ? high + HALF + 1 : high] | lower[size - HALF * skipped];
#pragma GCC unroll 1  // or the outer loop is vectorized, with stores of single numbers
        for (int64_t place = 0; place < PLACES; place++) shown[i * PLACES + place] = word >> BITS * place & 127;
    }
}

}  // extern "C"
