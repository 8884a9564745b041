// The choice of actions for LANES rows. The definition is `sample_actions` of training/rollout.py.
#pragma once

#include "lanes.h"

// Mixes the probabilities, vectors [V], with rows `blind(l)` [V] of weight `weights` [LANES], where one is not 0.
template <typename Blind>
void mix_blind(const float* weights, int64_t V, int count, Blind blind, float* buffer, float* chance) {
    bool mixes = false;
    for (int l = 0; l < LANES; l++) mixes |= weights[l] > 0;
    if (!mixes) return;
    for (int l = 0; l < LANES; l++) {
        const float* row = blind(std::min(l, count - 1));
        for (int64_t v = 0; v < V; v++) buffer[v * LANES + l] = row[v];
    }
    for (int64_t v = 0; v < V; v++) {
        const vec p = load(&chance[v * LANES]);
        store(&chance[v * LANES], p + load(weights) * (load(&buffer[v * LANES]) - p));
    }
}

// Actions and the logarithms of their probabilities: the likeliest without `uniform`, else drawn with it; [count].
inline void sample_lanes(const float* uniform, int64_t V, int count, const float* chance, int64_t* action,
                         float* log_prob) {
    float drawn[LANES] = {};
    for (int l = 0; l < LANES && uniform; l++) drawn[l] = uniform[std::min(l, count - 1)];
    vec chosen = load(chance), bound = all(0), sum = {};
    ints best = {};
    if (uniform)
        for (int64_t v = 0; v < V; v++) bound += load(&chance[v * LANES]);
    bound *= load(drawn);
    for (int64_t v = 0; v < V; v++) {  // the first token that reaches the bound, or the likeliest
        const vec p = load(&chance[v * LANES]);
        const auto moves = uniform ? (v > 0) & (sum < bound) : p > chosen;
        best = moves ? ints{} + int32_t(v) : best;
        chosen = moves ? p : chosen;
        sum += p;
    }
    const vec logs = logarithm(larger(chosen, all(TINY)));
    for (int l = 0; l < count; l++) {
        action[l] = best[l];
        log_prob[l] = logs[l];
    }
}
