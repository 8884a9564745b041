// The pocket calculator; the plain definition is in Python.

#include <algorithm>
#include <cstdint>

extern "C" {

constexpr int64_t HALF = 10000, BITS = 5;

// The pocket calculator, by the keys of `tasks/arithmetic.py`, each a word of bits: `state` is mode, entry, left,
// memory, value, target and the key pressed, [n] each; `numbers` [5, n] the first five of them after it; `verdicts` [3,
// n] done, success and invalid. Without branches, so that compilers make vectors of it.
void press(const int32_t* keys, const int64_t* const* state, int64_t n, int64_t* numbers, uint8_t* verdicts) {
    constexpr int64_t KEYS = 18, MODES = 128, LIMIT = HALF * HALF;
    enum { DIGIT = 15, RECALLS = 16, MINUS = 32, MULTIPLIES = 64, TYPES = 128, OPERATES = 256, STORES = 512 };
    enum { MODE = 10, DONE = 17, ANSWERS = 18, INVALID = 19 };  // from which bit on
    const int64_t *modes = state[0], *entries = state[1], *lefts = state[2], *memories = state[3], *values = state[4],
                  *targets = state[5], *actions = state[6];
    for (int64_t i = 0; i < n; i++) {
        const int64_t left = lefts[i], memory = memories[i], value = values[i];
        int64_t row = actions[i] + modes[i] * KEYS;
        const int64_t pressed = keys[row], typed = pressed & RECALLS ? memory : pressed & DIGIT;
        const int64_t total = pressed & MINUS ? left - typed : left + typed;
        const int64_t result = pressed & MULTIPLIES ? left * typed : total;
        row += (result >= LIMIT) | (result <= -LIMIT) ? MODES * KEYS : 0;
        const int64_t key = keys[row], after = key & TYPES ? result : value;
        numbers[i] = key >> MODE & (MODES - 1);
        numbers[n + i] = key & TYPES ? typed : entries[i];
        numbers[2 * n + i] = key & STORES ? 0 : key & OPERATES ? value : left;
        numbers[3 * n + i] = key & STORES ? value : memory;
        numbers[4 * n + i] = after;
        verdicts[i] = key >> DONE & 1;
        verdicts[n + i] = (key >> ANSWERS & 1) & (after == targets[i]);
        verdicts[2 * n + i] = key >> INVALID & 1;
    }
}

// Its display, [n, places], by the tables of its upper and its lower half.
void display(const int64_t* upper, const int64_t* lower, const int64_t* value, int64_t n, int64_t places,
             int64_t* shown) {
    for (int64_t i = 0; i < n; i++) {
        const uint32_t size = value[i] < 0 ? -value[i] : value[i], high = size / HALF;
        const int64_t skipped = std::clamp<int64_t>(int64_t{high} - 1, 0, HALF - 2);
        const int64_t word = upper[value[i] < 0 ? high + HALF + 1 : high] | lower[size - HALF * skipped];
        for (int64_t place = 0; place < places; place++) shown[i * places + place] = word >> BITS * place & 31;
    }
}

}  // extern "C"
