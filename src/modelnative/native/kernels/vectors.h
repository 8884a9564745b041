// Vectors, matrix products and sums of gradients. Vectors are GCC's and Clang's portable ones; matrices are float32,
// row-major. Row i of a result depends on row i of the arguments alone, bit for bit: the order of a sum does not depend
// on how rows fall into tiles, and gradients are summed in parts that depend on the number of rows but not on the
// number of threads.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
constexpr int LANES = 16, TALL = 6, WIDE = 4;  // 24 of 32 registers hold sums
#elif defined(__AVX__)
constexpr int LANES = 8, TALL = 6, WIDE = 2;  // 12 of 16
#elif defined(__aarch64__)
constexpr int LANES = 4, TALL = 6, WIDE = 4;  // 24 of 32
#else
constexpr int LANES = 4, TALL = 6, WIDE = 2;  // 12 of 16
#endif
constexpr int64_t BLOCK = 4 * TALL;  // episodes at a time, so few that all of them stays in the caches
constexpr int64_t SUMS = 8;          // parts that a gradient is summed in, at most

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef float loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline vec load(const float* p) { return *(const loose*)p; }
inline void store(float* p, vec x) { *(loose*)p = x; }
inline vec all(float x) { return x - vec{}; }
inline vec larger(vec a, vec b) { return a > b ? a : b; }

// Exponential and logarithm as in Moshier's Cephes library, to about one unit in the last place.

inline vec exponential(vec x) {
    x = larger(x, all(-87.0f));
    x = x < 88.0f ? x : all(88.0f);
    const vec shift = all(12582912.0f);  // adding it rounds to a whole number
    vec n = (x * 1.44269504088896341f + shift) - shift;
    x = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = all(1.9875691500e-4f);
    p = p * x + 1.3981999507e-3f;
    p = p * x + 8.3334519073e-3f;
    p = p * x + 4.1665795894e-2f;
    p = p * x + 1.6666665459e-1f;
    p = p * x + 5.0000001201e-1f;
    p = p * x * x + x + 1.0f;
    ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    return p * (vec)power;
}

inline vec logarithm(vec x) {  // of normal positive numbers
    ints bits = (ints)x;
    vec e = __builtin_convertvector((bits >> 23) - 126, vec);
    x = (vec)((bits & 0x007fffff) | 0x3f000000);  // in [0.5, 1)
    auto low = x < 0.707106781186547524f;
    e = low ? e - 1.0f : e;
    x = low ? x + x - 1.0f : x - 1.0f;
    vec p = all(7.0376836292e-2f);
    p = p * x - 1.1514610310e-1f;
    p = p * x + 1.1676998740e-1f;
    p = p * x - 1.2420140846e-1f;
    p = p * x + 1.4249322787e-1f;
    p = p * x - 1.6668057665e-1f;
    p = p * x + 2.0000714765e-1f;
    p = p * x - 2.4999993993e-1f;
    p = p * x + 3.3333331174e-1f;
    vec square = x * x;
    return (p * x * square - 2.12194440e-4f * e - 0.5f * square) + x + 0.693359375f * e;
}

inline vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

// c (+)= a · b, where a[i, k] is a[i * row + k * step], b is [depth, *] and c [*, *] with rows of ldb and ldc.

template <int ROWS, int COLUMNS>
void tile(const float* a, int64_t row, int64_t step, const float* b, int64_t ldb, float* c, int64_t ldc, int64_t depth,
          bool add) {
    vec sum[ROWS][COLUMNS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = add ? load(c + i * ldc + j * LANES) : vec{};
    for (int64_t k = 0; k < depth; k++) {
        vec right[COLUMNS];
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; j++) right[j] = load(b + k * ldb + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            vec left = all(a[i * row + k * step]);
#pragma GCC unroll 8
            for (int j = 0; j < COLUMNS; j++) sum[i][j] += left * right[j];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 8
        for (int j = 0; j < COLUMNS; j++) store(c + i * ldc + j * LANES, sum[i][j]);
}

template <int ROWS, int COLUMNS, typename... Rest>
void tiles(int64_t rows, int64_t columns, Rest... rest) {
    if constexpr (ROWS > 1)
        if (rows < ROWS) return tiles<ROWS - 1, COLUMNS>(rows, columns, rest...);
    if constexpr (COLUMNS > 1)
        if (columns < COLUMNS) return tiles<ROWS, COLUMNS - 1>(rows, columns, rest...);
    tile<ROWS, COLUMNS>(rest...);
}

inline void product(int64_t m, int64_t n, int64_t depth, const float* a, int64_t row, int64_t step, const float* b,
                    int64_t ldb, float* c, int64_t ldc, bool add) {
    const int64_t vectors = n / LANES;
    for (int64_t j = 0; j < vectors; j += WIDE)
        for (int64_t i = 0; i < m; i += TALL)
            tiles<TALL, WIDE>(m - i, vectors - j, a + i * row, row, step, b + j * LANES, ldb, c + i * ldc + j * LANES,
                              ldc, depth, add);
}

inline void add_to(float* sum, const float* x, int64_t count) {
    for (int64_t j = 0; j < count; j += LANES) store(sum + j, load(sum + j) + load(x + j));
}

// Gradients that several threads sum: the first part in place, the others apart, and at last all together.
struct Sums {
    struct Target {
        float* at;
        int64_t count;
    };
    const std::vector<Target> targets;
    const int64_t parts;
    int64_t size = 0;
    std::vector<float> others;

    Sums(std::vector<Target> to, int64_t wanted) : targets(to), parts(std::clamp<int64_t>(wanted, 1, SUMS)) {
        for (const Target& target : targets) {
            size += target.count;
            std::fill_n(target.at, target.count, 0.0f);
        }
        others.resize((parts - 1) * size);
    }

    float* of(int64_t part, int which) {
        if (!part) return targets[which].at;
        float* at = others.data() + (part - 1) * size;
        while (which) at += targets[--which].count;
        return at;
    }

    void add() {
        for (int64_t part = 1; part < parts; part++)
            for (size_t k = 0; k < targets.size(); k++) {
                const float* from = of(part, k);
                for (int64_t i = 0; i < targets[k].count; i++) targets[k].at[i] += from[i];
            }
    }
};
