// Layer norms and other operations on rows of a matrix whose width is a multiple of LANES.
#pragma once

#include <cmath>

#include "vectors.h"

constexpr float EPSILON = 1e-5f;  // of `torch.nn.LayerNorm`

inline float total(vec x) {
    union {
        vec whole;
        float part[LANES];
    } sum = {x};
    typedef float quad __attribute__((vector_size(16), may_alias));
    quad four = *(quad*)sum.part;
    for (int i = 4; i < LANES; i += 4) four += *(quad*)(sum.part + i);
    return (four[0] + four[2]) + (four[1] + four[3]);
}

// norm(x) * weight + bias of one token.
inline void normalize(const float* x, const float* weight, const float* bias, int64_t width, float* to) {
    vec sum = {}, squares = {};
    for (int64_t j = 0; j < width; j += LANES) sum += load(x + j);
    const float mean = total(sum) / width;
    for (int64_t j = 0; j < width; j += LANES) {
        const vec centered = load(x + j) - mean;
        squares += centered * centered;
    }
    const float scale = 1.0f / std::sqrt(total(squares) / width + EPSILON);
    for (int64_t j = 0; j < width; j += LANES)
        store(to + j, (load(x + j) - mean) * scale * load(weight + j) + load(bias + j));
}

// From the gradient of norm(x) * weight + bias, which `grad` has, to that of x, which is added to `to`.
inline void normalize_back(const float* x, const float* weight, int64_t width, const float* grad, float* to,
                           float* of_weight, float* of_bias) {
    vec sum = {}, squares = {};
    for (int64_t j = 0; j < width; j += LANES) sum += load(x + j);
    const float mean = total(sum) / width;
    for (int64_t j = 0; j < width; j += LANES) {
        const vec centered = load(x + j) - mean;
        squares += centered * centered;
    }
    const float scale = 1.0f / std::sqrt(total(squares) / width + EPSILON);
    vec plain = {}, along = {};
    for (int64_t j = 0; j < width; j += LANES) {
        const vec unit = (load(x + j) - mean) * scale, above = load(grad + j), inner = above * load(weight + j);
        store(of_weight + j, load(of_weight + j) + above * unit);
        store(of_bias + j, load(of_bias + j) + above);
        plain += inner, along += inner * unit;
    }
    const float level = total(plain) / width, tilt = total(along) / width;
    for (int64_t j = 0; j < width; j += LANES) {
        const vec unit = (load(x + j) - mean) * scale, inner = load(grad + j) * load(weight + j);
        store(to + j, load(to + j) + scale * (inner - level - unit * tilt));
    }
}

inline void transpose(const float* from, int64_t rows, int64_t columns, float* to) {
    for (int64_t i = 0; i < rows; i += LANES)
        for (int64_t k = 0; k < columns; k++)
            for (int64_t l = 0; l < LANES; l++) to[k * rows + i + l] = from[(i + l) * columns + k];
}

inline void repeat(const float* bias, int64_t width, int64_t rows, float* to) {
    for (int64_t i = 0; i < rows; i++) std::memcpy(to + i * width, bias, width * sizeof(float));
}

inline void add_rows(const float* rows, int64_t width, int64_t count, float* to) {
    for (int64_t j = 0; j < width; j += LANES) {
        vec sum = load(to + j);
        for (int64_t i = 0; i < count; i++) sum += load(rows + i * width + j);
        store(to + j, sum);
    }
}
