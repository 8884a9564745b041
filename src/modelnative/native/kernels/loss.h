// The loss of every algorithm and its gradient for LANES rows. The definition is `policy_loss` of training/loss.py.
#pragma once

#include "lanes.h"

struct LossColumns {  // of all tokens
    const int64_t* action;
    const float *behavior_log_prob, *advantage, *target;
    const bool *loss_mask, *explored, *hint_mask;
};

struct LossWeights {
    float clip_low, clip_high, imitation, hint, value_weight, entropy, count;
};

struct LossTotals {
    double gain = 0, error = 0, entropy = 0, kl = 0, clipped = 0, gap = 0, own = 0;

    void add(const LossTotals& other) {
        gain += other.gain, error += other.error, entropy += other.entropy;
        kl += other.kl, clipped += other.clipped, gap += other.gap, own += other.own;
    }

    // In the order of `LossTerms`.
    void write(const LossWeights& w, float* terms) const {
        terms[1] = -gain / w.count, terms[2] = error / w.count, terms[3] = entropy / w.count;
        terms[4] = kl / w.count, terms[5] = clipped / w.count;
        terms[6] = gap, terms[7] = own;
        terms[0] = terms[1] + w.value_weight * terms[2] - w.entropy * terms[3];
    }
};

// Of `count` tokens, whose row in the columns is `at(l)`. `scores` are logits, `scale` the logarithm of what their
// exponentials sum to, `chance` their softmax, vectors [vocabulary]; `values` [count]. The scores become the gradients
// by the logits.
template <typename At>
void loss_lanes(const LossColumns& c, const LossWeights& w, int64_t V, int count, At at, const float* values, vec scale,
                float* scores, const float* chance, float* of_value, LossTotals& total) {
    const bool clips = w.clip_low != 0 || w.clip_high != 0;
    const float each = 1 / w.count, least = -69.0775527898f;  // log(TINY)
    float log_old[LANES], gained[LANES], error[LANES], counts[LANES], imitates[LANES], hints[LANES], chosen[LANES];
    int64_t acted[LANES];
    for (int l = 0; l < LANES; l++) {
        const bool real = l < count;
        const int64_t row = at(std::min(l, count - 1));
        counts[l] = real && c.loss_mask[row];
        hints[l] = real && c.hint_mask[row] ? w.hint : 0;
        log_old[l] = c.behavior_log_prob[row], gained[l] = c.advantage[row];
        error[l] = counts[l] > 0 ? values[l] - c.target[row] : 0;
        imitates[l] = w.imitation != 0 && c.explored[row] && gained[l] > 0;
        chosen[l] = scores[(acted[l] = c.action[row]) * LANES + l];
    }
    const vec advantage = load(gained), own = load(chosen) - scale, log_prob = larger(own, all(least));
    const auto counted = load(counts) > 0, imitated = load(imitates) > 0;
    const vec zero = {}, difference = counted ? log_prob - load(log_old) : zero;
    const vec ratio = exponential(difference);
    vec gain = ratio * advantage, of_gain = gain;
    if (clips) {
        vec bounded = larger(ratio, all(1 - w.clip_low));
        bounded = bounded < 1 + w.clip_high ? bounded : all(1 + w.clip_high);
        const auto cut = bounded * advantage < gain;
        of_gain = cut ? zero : of_gain;
        gain = cut ? bounded * advantage : gain;
        const vec clipped = ratio != bounded ? load(counts) : zero;
        for (int l = 0; l < LANES; l++) total.clipped += clipped[l];
    }
    gain = imitated ? w.imitation * advantage * log_prob : gain;
    of_gain = counted ? (imitated ? w.imitation * advantage : of_gain) : load(hints);
    of_gain = own < least ? zero : of_gain;
    gain = counted ? gain : load(hints) * log_prob;

    vec entropy = {};
    for (int64_t v = 0; v < V; v++) {
        const vec log_p = larger(load(&scores[v * LANES]) - scale, all(least));
        store(&scores[v * LANES], log_p);
        entropy -= load(&chance[v * LANES]) * log_p;
    }
    const vec of_entropy = load(counts) * w.entropy;
    for (int64_t v = 0; v < V; v++) {
        const vec p = load(&chance[v * LANES]);
        store(&scores[v * LANES], each * p * (of_gain + of_entropy * (load(&scores[v * LANES]) + entropy)));
    }
    for (int l = 0; l < count; l++) {
        scores[acted[l] * LANES + l] -= each * of_gain[l];
        of_value[l] = 2 * w.value_weight * error[l] * each;
        if (hints[l] != 0) total.gain += gain[l];
        if (counts[l] == 0) continue;
        total.gain += gain[l], total.error += error[l] * error[l], total.entropy += entropy[l];
        total.kl += ratio[l] - 1.0f - difference[l];
        if (!c.explored[at(l)]) total.gap += std::abs(difference[l]), total.own++;
    }
}
