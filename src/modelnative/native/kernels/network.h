// The shipped policy with a GRU of one layer: embeddings, GRU, heads. The definition is `TokenPolicy` of
// policies/policy.py with the core of policies/cores/gru.py.
#pragma once

#include <cmath>

#include "gru.h"
#include "heads.h"

struct Network {
    const float* embedding;     // [rows, width]: tokens, stages, then the tokens at each place of the feedback
    const float* context;       // [places * vocabulary, width], what is read at the start
    const float* weight;        // [3 width, width], of the inputs
    const float* recurrent;     // [3 width, width]
    const float *bias, *inner;  // [3 width] and [width]
    const float *head_weight, *head_bias;
    int64_t rows, width, vocabulary, places, first_place, blank, feedback_places, stage_aware, copies;

    int64_t gates() const { return 3 * width; }
    int64_t most_rows() const { return 2 + feedback_places; }
    HeadShape heads() const { return {width, vocabulary, copies ? places : 0, blank}; }

    // The rows of `embedding` that the input of a token is the sum of; returns how many.
    template <typename Index>
    int64_t input_rows(int64_t token, int64_t stage, const int64_t* feedback, Index* to) const {
        int64_t count = 0;
        to[count++] = token;
        if (stage_aware) to[count++] = vocabulary + stage;
        for (int64_t place = 0; place < feedback_places; place++) {
            to[count] = first_place + place * vocabulary + feedback[place];
            count += feedback[place] != blank;
        }
        return count;
    }

    // The hidden state [width] before the first token of a problem.
    void begin(const int64_t* read, int64_t stage, float* to) const {
        const float scale = 1 / std::sqrt(float(places));
        for (int64_t j = 0; j < width; j += LANES) {
            vec sum = {};
            for (int64_t k = 0; k < places; k++) sum += load(context + (k * vocabulary + read[k]) * width + j);
            sum *= scale;
            if (stage_aware) sum += load(embedding + (vocabulary + stage) * width + j);
            store(to + j, 2.0f * sigmoid(2.0f * sum) - 1.0f);
        }
    }

    // Some rows of `embedding` [count], as they are and times the weight: what the GRU's inputs are the sums of.
    void table(const std::vector<int64_t>& which, float* packed, float* inputs) const {
        std::vector<float> across(width * gates());
        transpose_to(weight, gates(), width, across.data());
        const int64_t count = which.size();
        for (int64_t k = 0; k < count; k++) std::copy_n(embedding + which[k] * width, width, packed + k * width);
        product(count, gates(), width, packed, width, 1, across.data(), gates(), inputs, gates(), false);
        for (int64_t k = 0; k < count && which[k] < vocabulary; k++) add_to(inputs + k * gates(), bias, gates());
    }
};

// The sum of rows of a table [*, width].
template <typename Index>
void sum_rows(const float* table, const Index* rows, int64_t count, int64_t width, float* to) {
    for (int64_t j = 0; j < width; j += LANES) {
        vec total = {};
        for (int64_t k = 0; k < count; k++) total += load(table + rows[k] * width + j);
        store(to + j, total);
    }
}
