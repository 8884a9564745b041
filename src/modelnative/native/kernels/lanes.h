// Rows of a matrix, LANES at a time, one in each lane of a vector.
#pragma once

#include "vectors.h"

constexpr int64_t GROUP = 16 * TALL;  // rows that a thread takes at a time, a multiple of LANES
constexpr float TINY = 1e-30f;        // the least probability, as in policies/heads.py
constexpr float NONE = -3e38f;        // a score with no probability

inline int64_t groups(int64_t rows) { return (rows + GROUP - 1) / GROUP; }

// Column k of the rows `first` to `first + LANES - 1` becomes vector k; past the last row, the last row is repeated.
inline void to_lanes(const float* rows, int64_t stride, int64_t columns, int64_t first, int64_t last, float* lanes) {
    for (int l = 0; l < LANES; l++) {
        const float* row = rows + std::min(first + l, last) * stride;
        for (int64_t k = 0; k < columns; k++) lanes[k * LANES + l] = row[k];
    }
}

// The inverse of `to_lanes`.
inline void from_lanes(const float* lanes, int64_t columns, int64_t first, int64_t last, float* rows, int64_t stride) {
    for (int l = 0; l < LANES && first + l <= last; l++) {
        float* row = rows + (first + l) * stride;
        for (int64_t k = 0; k < columns; k++) row[k] = lanes[k * LANES + l];
    }
}

// The softmax of `columns` vectors of scores, in place; returns the logarithm of what the exponentials sum to.
inline vec softmax(float* scores, int64_t columns) {
    vec top = all(NONE), total = {};
    for (int64_t k = 0; k < columns; k++) top = larger(top, load(scores + k * LANES));
    for (int64_t k = 0; k < columns; k++) {
        const vec score = load(scores + k * LANES), weight = score > -1e38f ? exponential(score - top) : vec{};
        store(scores + k * LANES, weight);
        total += weight;
    }
    const vec share = 1.0f / total;
    for (int64_t k = 0; k < columns; k++) store(scores + k * LANES, load(scores + k * LANES) * share);
    return top + logarithm(total);
}
