// The pocket calculator; the plain definition of both operators is in Python, in native/calculator.py.

#include "calculator.h"

#include <type_traits>

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
            calculator::Verdicts verdict;
            const calculator::Registers after = calculator::press(
                c.rules, c.modes, c.keys, count, c.action[i], {c.mode[i], c.entry[i], c.accumulator[i], c.value[i]},
                c.target[i], c.cells + i * count, cells_after + i * count, verdict);
            registers[i] = after.mode, registers[n + i] = after.entry;
            registers[2 * n + i] = after.accumulator, registers[3 * n + i] = after.value;
            verdicts[i] = verdict.done, verdicts[n + i] = verdict.success, verdicts[2 * n + i] = verdict.invalid;
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
    for (int64_t i = 0; i < n; i++) calculator::display(upper, lower, value[i], shown + i * calculator::PLACES);
}

}  // extern "C"
