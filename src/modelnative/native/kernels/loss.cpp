// The loss of every algorithm, and the choice of actions. The definitions are `policy_loss` of training/loss.py and
// `sample_actions` of training/rollout.py.

#include "loss.h"

#include "sample.h"
#include "threads.h"

extern "C" {

struct LossCall {
    const float *logits, *value;  // [M, vocabulary] and [M]
    LossColumns columns;
    const int64_t* where;  // [M], which rows of the columns are meant; null for the first M
    int64_t rows, vocabulary, threads;
    LossWeights weights;
};

int64_t loss_call_size() { return sizeof(LossCall); }

// The terms of the loss in the order of `LossTerms`, and the gradients of its first term by `logits` and `value`.
void policy_loss(const LossCall* call, float* terms, float* of_logits, float* of_value) {
    const LossCall& c = *call;
    const int64_t V = c.vocabulary, parts = std::clamp<int64_t>(groups(c.rows), 1, SUMS);
    LossTotals totals[SUMS], sum;
    workers().share(parts, c.threads, [&](int64_t part) {
        std::vector<float> scores(V * LANES), chance(V * LANES);
        for (int64_t group = part * GROUP; group < c.rows; group += parts * GROUP)
            for (int64_t first = group; first < std::min(c.rows, group + GROUP); first += LANES) {
                to_lanes(c.logits, V, V, first, c.rows - 1, scores.data());
                chance = scores;
                const vec scale = softmax(chance.data(), V);
                auto at = [&](int l) { return c.where ? c.where[first + l] : first + l; };
                loss_lanes(c.columns, c.weights, V, std::min<int64_t>(LANES, c.rows - first), at, c.value + first,
                           scale, scores.data(), chance.data(), of_value + first, totals[part]);
                from_lanes(scores.data(), V, first, c.rows - 1, of_logits, V);
            }
    });
    for (const LossTotals& part : totals) sum.add(part);
    sum.write(c.weights, terms);
}

struct SampleCall {
    const float *logits, *uniform, *share, *blind;  // [M, vocabulary], [M], [M], [M, vocabulary]; null but the first
    int64_t rows, vocabulary, threads;
};

int64_t sample_call_size() { return sizeof(SampleCall); }

// The action of every row and its log-probability: the likeliest without `uniform`; else drawn with it, from a mixture
// with `blind` of weight `share` where there is one.
void sample_actions(const SampleCall* call, int64_t* action, float* log_prob) {
    const SampleCall& c = *call;
    const int64_t V = c.vocabulary, count = groups(c.rows), parts = std::min(c.threads, count);
    workers().share(parts, c.threads, [&](int64_t part) {
        std::vector<float> chance(V * LANES), other(V * LANES);
        for (int64_t first = count * part / parts * GROUP; first < std::min(c.rows, count * (part + 1) / parts * GROUP);
             first += LANES) {
            const int real = std::min<int64_t>(LANES, c.rows - first);
            to_lanes(c.logits, V, V, first, c.rows - 1, chance.data());
            softmax(chance.data(), V);
            if (c.share && c.blind) {
                float weights[LANES];
                for (int l = 0; l < LANES; l++) weights[l] = c.share[first + std::min(l, real - 1)];
                auto blind = [&](int l) { return c.blind + (first + l) * V; };
                mix_blind(weights, V, real, blind, other.data(), chance.data());
            }
            sample_lanes(c.uniform ? c.uniform + first : nullptr, V, real, chance.data(), action + first,
                         log_prob + first);
        }
    });
}

}  // extern "C"
