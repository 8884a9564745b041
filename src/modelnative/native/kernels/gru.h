// One step of a GRU for the sequences of a block, forward and backward. The definition is `gru` of
// policies/cores/gru.py.
#pragma once

#include "vectors.h"

// Hidden states [count, H] after a token, from those before it. `input(i)` is the input of sequence i, [3 H], or null
// where the sequence has ended: its hidden state is 0. `across` is the recurrent weight's transpose, `recurrent` a
// buffer [count, 3 H]. For the derivative `gates` [count, 3 H] gets the gates and `inner` [count, H] the candidate's
// recurrent part; both may be null.
template <typename Input>
void gru_step(int64_t count, int64_t H, const float* before, const float* across, const float* bias, float* recurrent,
              float* hidden, float* gates, float* inner, Input input) {
    const int64_t G = 3 * H;
    if (count) product(count, G, H, before, H, 1, across, G, recurrent, G, false);
    for (int64_t i = 0; i < count; i++) {
        const float *gate = input(i), *own = recurrent + i * G, *old = before + i * H;
        float* now = hidden + i * H;
        if (!gate) {
            std::fill_n(now, H, 0.0f);
            continue;
        }
        for (int64_t j = 0; j < H; j += LANES) {
            vec reset = sigmoid(load(gate + j) + load(own + j));
            vec update = sigmoid(load(gate + H + j) + load(own + H + j));
            vec within = load(own + 2 * H + j) + load(bias + j);
            vec candidate = 2.0f * sigmoid(2.0f * (load(gate + 2 * H + j) + reset * within)) - 1.0f;
            store(now + j, candidate + update * (load(old + j) - candidate));
            if (!gates) continue;
            store(gates + i * G + j, reset);
            store(gates + i * G + H + j, update);
            store(gates + i * G + 2 * H + j, candidate);
            store(inner + i * H + j, within);
        }
    }
}

// From the gradient of the hidden states after a token to those before it. `carried` [count, H] is what later steps add
// to `grad`; it becomes the gradient of `before`. Those of the parameters are added. `out(i)` is where the gradient of
// sequence i's input is written, null where the sequence has ended; `added(i)` is called when it is there. `change` is
// a buffer [count, 3 H].
template <typename Out, typename Added>
void gru_step_back(int64_t count, int64_t H, const float* before, const float* weight, const float* gates,
                   const float* inner, const float* grad, float* carried, float* change, float* of_weight,
                   float* of_bias, Out out, Added added) {
    const int64_t G = 3 * H;
    for (int64_t i = 0; i < count; i++) {
        float *turn = change + i * G, *back = carried + i * H, *to = out(i);
        if (!to) {
            std::fill_n(turn, G, 0.0f);
            continue;
        }
        const float *gate = gates + i * G, *old = before + i * H;
        for (int64_t j = 0; j < H; j += LANES) {
            vec reset = load(gate + j), update = load(gate + H + j), candidate = load(gate + 2 * H + j);
            vec dh = load(grad + i * H + j) + load(back + j);
            vec of_candidate = dh * (1.0f - update) * (1.0f - candidate * candidate);
            vec of_inner = of_candidate * reset;
            vec of_reset = of_inner * load(inner + i * H + j) * (1.0f - reset);
            vec of_update = dh * (load(old + j) - candidate) * update * (1.0f - update);
            store(back + j, dh * update);
            store(turn + j, of_reset);
            store(turn + H + j, of_update);
            store(turn + 2 * H + j, of_inner);
            store(to + j, of_reset);
            store(to + H + j, of_update);
            store(to + 2 * H + j, of_candidate);
            store(of_bias + j, load(of_bias + j) + of_inner);
        }
        added(i);
    }
    product(count, H, G, change, G, 1, weight, H, carried, H, true);
    product(G, H, count, change, 1, G, before, H, of_weight, H, true);
}

// [rows, columns] to [columns, rows].
inline void transpose_to(const float* from, int64_t rows, int64_t columns, float* to) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t k = 0; k < columns; k++) to[k * rows + i] = from[i * columns + k];
}
