// Policy, value and copy head for LANES rows, forward and backward. The definition is `copy_heads` of
// policies/heads.py. Vectors have a row in each lane; `context(l)` is what row l reads, [places].
#pragma once

#include "lanes.h"

struct HeadShape {
    int64_t width, vocabulary, places, padding;

    // Scores of a row: for writing each token, the value and, where there are places, for copying by place and content.
    int64_t scores() const { return vocabulary + 1 + (places ? places + vocabulary : 0); }
    int64_t padded() const { return (scores() + LANES - 1) / LANES * LANES; }

    // The transpose of the weight [scores, width], and the bias, padded to whole vectors.
    void pad(const float* weight, const float* bias, std::vector<float>& across, std::vector<float>& own) const {
        across.assign(width * padded(), 0.0f), own.assign(padded(), 0.0f);
        for (int64_t k = 0; k < scores(); k++) {
            own[k] = bias[k];
            for (int64_t i = 0; i < width; i++) across[i * padded() + k] = weight[k * width + i];
        }
    }

    // Scores [count, padded] of hidden states [count, width].
    void score(const float* states, int64_t count, const float* across, const float* bias, float* out) const {
        for (int64_t i = 0; i < count; i++) std::copy_n(bias, padded(), out + i * padded());
        product(count, padded(), width, states, width, 1, across, padded(), out, padded(), true);
    }

    // What each token [vocabulary] is written with, and each place [places] copied with: vectors, from rows of scores;
    // after the last row, that row again.
    template <typename Context>
    void mix(const float* scores, int count, Context context, float* mixed) const {
        for (int l = 0; l < LANES; l++) {
            const float* row = scores + std::min(l, count - 1) * padded();
            const float *by_place = row + vocabulary + 1, *by_content = by_place + places;
            const int64_t* read = context(std::min(l, count - 1));
            for (int64_t v = 0; v < vocabulary; v++) mixed[v * LANES + l] = row[v];
            for (int64_t k = 0; k < places; k++)
                mixed[(vocabulary + k) * LANES + l] = read[k] == padding ? NONE : by_place[k] + by_content[read[k]];
        }
        softmax(mixed, vocabulary + places);
    }

    // Adds to each token's vector in `write` those of the places where the token stands.
    template <typename Context>
    void add_copies(int count, Context context, const float* copied, float* write) const {
        for (int l = 0; l < LANES && places; l++) {
            const int64_t* read = context(std::min(l, count - 1));
            for (int64_t k = 0; k < places; k++) write[read[k] * LANES + l] += copied[k * LANES + l];
        }
    }

    // From the gradients of log-probabilities (`slope`), values and copied parts (`of_copy`) to those of the scores,
    // rows [count, padded], whose sum is added to `of_bias`. All vectors are changed.
    template <typename Context>
    void back(int count, Context context, float* write, float* copy, float* slope, float* of_copy,
              const float* of_value, float* rows, float* of_bias, float* chance) const {
        const int64_t V = vocabulary, C = places;
        std::copy_n(write, V * LANES, chance);
        add_copies(count, context, copy, chance);
        vec mean = {};  // of the slopes, which the softmax takes off
        for (int64_t v = 0; v < V; v++) {
            const vec p = load(&chance[v * LANES]), of_log = load(&slope[v * LANES]);
            const vec own = p < TINY ? vec{} : of_log / larger(p, all(TINY));
            store(&slope[v * LANES], own);
            mean += load(&write[v * LANES]) * own;
        }
        for (int l = 0; l < LANES; l++) {
            const int64_t* read = context(std::min(l, count - 1));
            for (int64_t k = 0; k < C; k++) of_copy[k * LANES + l] += slope[read[k] * LANES + l];
        }
        for (int64_t k = 0; k < C; k++) mean += load(&copy[k * LANES]) * load(&of_copy[k * LANES]);
        for (int64_t v = 0; v < V; v++)
            store(&write[v * LANES], load(&write[v * LANES]) * (load(&slope[v * LANES]) - mean));
        for (int64_t k = 0; k < C; k++)
            store(&copy[k * LANES], load(&copy[k * LANES]) * (load(&of_copy[k * LANES]) - mean));
        for (int l = 0; l < count; l++) {
            const int64_t* read = context(l);
            float *own = rows + l * padded(), *by_place = own + V + 1, *by_content = by_place + C;
            for (int64_t v = 0; v < V; v++) own[v] = write[v * LANES + l];
            own[V] = of_value[l];
            for (int64_t v = 0; v < V && C; v++) by_content[v] = 0;
            for (int64_t k = 0; k < C; k++) {
                by_place[k] = copy[k * LANES + l];
                by_content[read[k]] += by_place[k];
            }
            for (int64_t k = 0; k < scores(); k++) of_bias[k] += own[k];
        }
    }
};
