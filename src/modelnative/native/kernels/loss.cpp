// The loss of every algorithm and its gradient. The definition is `policy_loss` of training/loss.py.

#include "lanes.h"
#include "threads.h"

extern "C" {

struct LossCall {
    const float *logits, *value;  // [M, vocabulary] and [M]
    const int64_t* action;        // [*], and so are the columns that follow
    const float *behavior_log_prob, *advantage, *target;
    const bool *loss_mask, *explored, *hint_mask;
    const int64_t* where;  // [M], which rows of the columns from `action` on are meant; null for the first M
    int64_t rows, vocabulary, threads;
    float clip_low, clip_high, imitation, hint, value_weight, entropy, count;
};

int64_t loss_call_size() { return sizeof(LossCall); }

// The terms of the loss in the order of `LossTerms`, and the gradients of its first term by `logits` and `value`.
void policy_loss(const LossCall* call, float* terms, float* of_logits, float* of_value) {
    const LossCall& c = *call;
    const int64_t V = c.vocabulary;
    const bool clips = c.clip_low != 0 || c.clip_high != 0;
    const float each = 1 / c.count, least = -69.0775527898f;  // log(TINY)
    struct Totals {
        double gain = 0, error = 0, entropy = 0, kl = 0, clipped = 0;
    } totals[SUMS];
    const int64_t parts = std::clamp<int64_t>(groups(c.rows), 1, SUMS);
    workers().share(parts, c.threads, [&](int64_t part) {
        std::vector<float> scores(V * LANES), chance(V * LANES);
        Totals& total = totals[part];
        for (int64_t group = part * GROUP; group < c.rows; group += parts * GROUP)
            for (int64_t first = group; first < std::min(c.rows, group + GROUP); first += LANES) {
                to_lanes(c.logits, V, V, first, c.rows - 1, scores.data());
                chance = scores;
                const vec scale = softmax(chance.data(), V);
                float log_old[LANES], gained[LANES], error[LANES], counts[LANES], imitates[LANES], hints[LANES],
                    chosen[LANES];
                int64_t acted[LANES];
                for (int l = 0; l < LANES; l++) {
                    const int64_t row = std::min(first + l, c.rows - 1);
                    const int64_t at = c.where ? c.where[row] : row;
                    const bool real = row == first + l;
                    counts[l] = real && c.loss_mask[at];
                    hints[l] = real && c.hint_mask[at] ? c.hint : 0;
                    log_old[l] = c.behavior_log_prob[at], gained[l] = c.advantage[at];
                    error[l] = counts[l] > 0 ? c.value[row] - c.target[at] : 0;
                    imitates[l] = c.imitation != 0 && c.explored[at] && gained[l] > 0;
                    chosen[l] = scores[(acted[l] = c.action[at]) * LANES + l];
                }
                const vec advantage = load(gained), own = load(chosen) - scale, log_prob = larger(own, all(least));
                const auto counted = load(counts) > 0, imitated = load(imitates) > 0;
                const vec zero = {}, difference = counted ? log_prob - load(log_old) : zero;
                const vec ratio = exponential(difference);
                vec gain = ratio * advantage, of_gain = gain;
                if (clips) {
                    vec bounded = larger(ratio, all(1 - c.clip_low));
                    bounded = bounded < 1 + c.clip_high ? bounded : all(1 + c.clip_high);
                    const auto cut = bounded * advantage < gain;
                    of_gain = cut ? zero : of_gain;
                    gain = cut ? bounded * advantage : gain;
                    const vec clipped = ratio != bounded ? load(counts) : zero;
                    for (int l = 0; l < LANES; l++) total.clipped += clipped[l];
                }
                gain = imitated ? c.imitation * advantage * log_prob : gain;
                of_gain = counted ? (imitated ? c.imitation * advantage : of_gain) : load(hints);
                of_gain = own < least ? zero : of_gain;
                gain = counted ? gain : load(hints) * log_prob;

                vec entropy = {};
                for (int64_t v = 0; v < V; v++) {
                    const vec log_p = larger(load(&scores[v * LANES]) - scale, all(least));
                    store(&scores[v * LANES], log_p);
                    entropy -= load(&chance[v * LANES]) * log_p;
                }
                const vec of_entropy = load(counts) * c.entropy;
                for (int64_t v = 0; v < V; v++) {
                    const vec p = load(&chance[v * LANES]);
                    store(&scores[v * LANES], each * p * (of_gain + of_entropy * (load(&scores[v * LANES]) + entropy)));
                }
                for (int l = 0; l < LANES && first + l < c.rows; l++) {
                    const int64_t row = first + l;
                    scores[acted[l] * LANES + l] -= each * of_gain[l];
                    of_value[row] = 2 * c.value_weight * error[l] * each;
                    if (hints[l] != 0) total.gain += gain[l];
                    if (counts[l] == 0) continue;
                    total.gain += gain[l], total.error += error[l] * error[l], total.entropy += entropy[l];
                    total.kl += ratio[l] - 1.0f - difference[l];
                }
                from_lanes(scores.data(), V, first, c.rows - 1, of_logits, V);
            }
    });
    Totals sum;
    for (const Totals& part : totals) {
        sum.gain += part.gain, sum.error += part.error, sum.entropy += part.entropy;
        sum.kl += part.kl, sum.clipped += part.clipped;
    }
    terms[1] = -sum.gain / c.count, terms[2] = sum.error / c.count, terms[3] = sum.entropy / c.count;
    terms[4] = sum.kl / c.count, terms[5] = sum.clipped / c.count;
    terms[0] = terms[1] + c.value_weight * terms[2] - c.entropy * terms[3];
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
            to_lanes(c.logits, V, V, first, c.rows - 1, chance.data());
            softmax(chance.data(), V);
            float drawn[LANES] = {}, weights[LANES] = {};
            bool mixes = false;
            for (int l = 0; l < LANES; l++) {
                const int64_t row = std::min(first + l, c.rows - 1);
                if (c.uniform) drawn[l] = c.uniform[row];
                if (c.share) weights[l] = c.share[row], mixes |= weights[l] > 0;
            }
            if (mixes) {
                to_lanes(c.blind, V, V, first, c.rows - 1, other.data());
                for (int64_t v = 0; v < V; v++) {
                    const vec p = load(&chance[v * LANES]);
                    store(&chance[v * LANES], p + load(weights) * (load(&other[v * LANES]) - p));
                }
            }
            vec chosen = load(chance.data()), bound = all(0), sum = {};
            ints best = {};
            if (c.uniform)
                for (int64_t v = 0; v < V; v++) bound += load(&chance[v * LANES]);
            bound *= load(drawn);
            for (int64_t v = 0; v < V; v++) {  // the first token that reaches the bound, or the likeliest
                const vec p = load(&chance[v * LANES]);
                const auto moves = c.uniform ? (v > 0) & (sum < bound) : p > chosen;
                best = moves ? ints{} + int32_t(v) : best;
                chosen = moves ? p : chosen;
                sum += p;
            }
            const vec logs = logarithm(larger(chosen, all(TINY)));
            for (int l = 0; l < LANES && first + l < c.rows; l++) {
                action[first + l] = best[l];
                log_prob[first + l] = logs[l];
            }
        }
    });
}

}  // extern "C"
