// From hidden states to actions and to the loss; the plain definitions are in Python.

#include "threads.h"
#include "vectors.h"

extern "C" {

// M distributions over the next token: hidden states and the heads' matrix, whose product has scores for writing each
// token, the value and, where tokens can be copied, scores for copying by place and by content (`policies/heads.py`).
struct Choices {
    const float* hidden;     // [*, width]
    const int64_t* heed;     // [M], which of its rows are meant; null for the first M
    const float* weight;     // [vocabulary + 1 (+ places + vocabulary), width]
    const float* bias;       // one each
    const int64_t* context;  // [*, places]
    const int64_t* episode;  // [M], whose context it is; null for one each
    int64_t rows, width, vocabulary, places, padding;

    static constexpr int64_t GROUP = 16 * TALL;  // rows at a time, a multiple of LANES
    int64_t scores() const { return vocabulary + 1 + (places ? places + vocabulary : 0); }
    int64_t groups() const { return (rows + GROUP - 1) / GROUP; }
    const int64_t* read(int64_t row) const { return context + (episode ? episode[row] : row) * places; }
};

// Rows of choices, some at a time: their hidden states and scores, and LANES distributions of them, one in each lane.
struct Reader {
    static constexpr int64_t GROUP = Choices::GROUP;
    const Choices& in;
    const int64_t columns, padded;              // scores of a row, and numbers from one row to the next
    std::vector<float> across, bias, own, out;  // [width, padded], [padded], [GROUP, width], [GROUP, padded]
    const float* hidden;                        // of the rows at hand
    int64_t first, count;

    std::vector<float> write, copied, chance;  // [vocabulary, LANES], [places, LANES], [vocabulary, LANES]
    int64_t row[LANES];                        // past the last it is the last again

    explicit Reader(const Choices& choices)
        : in(choices),
          columns(in.scores()),
          padded((columns + LANES - 1) / LANES * LANES),
          across(in.width * padded),
          bias(padded),
          own(GROUP * in.width),
          out(GROUP * padded),
          write(in.vocabulary * LANES),
          copied(in.places * LANES),
          chance(write.size()) {
        for (int64_t k = 0; k < columns; k++) {
            bias[k] = in.bias[k];
            for (int64_t i = 0; i < in.width; i++) across[i * padded + k] = in.weight[k * in.width + i];
        }
    }

    void score(int64_t from) {
        first = from, count = std::min(in.rows - first, GROUP), hidden = in.hidden + first * in.width;
        if (in.heed) {
            for (int64_t i = 0; i < count; i++)
                std::memcpy(&own[i * in.width], in.hidden + in.heed[first + i] * in.width, in.width * sizeof(float));
            hidden = own.data();
        }
        for (int64_t i = 0; i < count; i++) std::copy(bias.begin(), bias.end(), &out[i * padded]);
        product(count, padded, in.width, hidden, in.width, 1, across.data(), padded, out.data(), padded, true);
    }

    float value(int64_t row) const { return out[(row - first) * padded + in.vocabulary]; }

    void mix(int64_t from) {
        vec most = all(-3e38f);
        for (int l = 0; l < LANES; l++) {
            row[l] = std::min(from + l, first + count - 1);
            const float* scores = &out[(row[l] - first) * padded];
            const int64_t* context = in.read(row[l]);
            for (int64_t v = 0; v < in.vocabulary; v++) write[v * LANES + l] = scores[v];
            const float *by_place = scores + in.vocabulary + 1, *by_content = by_place + in.places;
            for (int64_t c = 0; c < in.places; c++)
                copied[c * LANES + l] = context[c] == in.padding ? -3e38f : by_place[c] + by_content[context[c]];
        }
        for (auto* scores : {&write, &copied})
            for (size_t k = 0; k < scores->size(); k += LANES) most = larger(most, load(scores->data() + k));
        vec total = {};
        for (auto* scores : {&write, &copied})
            for (size_t k = 0; k < scores->size(); k += LANES) {
                vec score = load(scores->data() + k);
                vec weight = score > -1e38f ? exponential(score - most) : vec{};
                store(scores->data() + k, weight);
                total += weight;
            }
        const vec share = 1.0f / total;
        for (auto* scores : {&write, &copied})
            for (size_t k = 0; k < scores->size(); k += LANES)
                store(scores->data() + k, load(scores->data() + k) * share);
        chance = write;
        for (int l = 0; l < LANES && in.places; l++) {
            const int64_t* context = in.read(row[l]);
            for (int64_t c = 0; c < in.places; c++) chance[context[c] * LANES + l] += copied[c * LANES + l];
        }
    }
};

constexpr float TINY = 1e-30f;  // as in `policies/heads.py`

// The next action of every row, the logarithm of its probability, and the value: the likeliest without `uniform` [M];
// else drawn, from a mixture with `blind` [M, vocabulary] of weight `share` [M] where there is one.
void choose(const Choices* choices, const float* uniform, const float* share, const float* blind, int64_t* action,
            float* log_prob, float* value, int64_t threads) {
    const Choices& in = *choices;
    const int64_t groups = in.groups(), parts = std::min(threads, groups);
    crew().share(parts, threads, [&](int64_t part) {
        Reader reader(in);
        for (int64_t first = groups * part / parts * Reader::GROUP;
             first < std::min(in.rows, groups * (part + 1) / parts * Reader::GROUP); first += LANES) {
            if (first % Reader::GROUP == 0) reader.score(first);
            reader.mix(first);
            float chosen[LANES];
            for (int l = 0; l < LANES; l++) {
                const int64_t row = reader.row[l];
                float* chance = reader.chance.data() + l;
                float total = 0;
                int64_t best = 0;
                for (int64_t v = 0; v < in.vocabulary; v++) {
                    float& p = chance[v * LANES];
                    p = std::max(p, TINY);
                    if (share && share[row] > 0) p += share[row] * (blind[row * in.vocabulary + v] - p);
                    total += p;
                    if (p > chance[best * LANES]) best = v;
                }
                if (uniform) {
                    float sum = chance[best = 0];
                    while (best < in.vocabulary - 1 && sum < uniform[row] * total) sum += chance[++best * LANES];
                }
                action[row] = best;
                value[row] = reader.value(row);
                chosen[l] = chance[best * LANES];
            }
            const vec logs = logarithm(load(chosen));
            for (int l = 0; l < LANES; l++) log_prob[reader.row[l]] = logs[l];
        }
    });
}

// What the loss weighs a row by, as in `training/loss.py`; each [*].
struct Judged {
    const int64_t* action;
    const float *behavior, *advantage, *target;
    const bool *free, *explored, *forced;  // the last null where nothing is
    const int64_t* where;                  // [M], which rows of them are meant; null for the first M
};
struct Weights {
    float clip_low, clip_high, imitation, hint, value, entropy, count;
};

// The terms of the loss (see `Terms`), and its gradient; `of_hidden` is written at the rows meant only.
void judge(const Choices* choices, const Judged* judged, const Weights* weights, double* terms, float* of_hidden,
           float* of_weight, float* of_bias, int64_t threads) {
    const Choices& in = *choices;
    const Weights& w = *weights;
    const int64_t H = in.width, columns = in.scores();
    const bool clips = w.clip_low != 0 || w.clip_high != 0;
    const float each = 1 / w.count;
    struct Totals {
        double gains = 0, errors = 0, entropies = 0, divergences = 0, clippings = 0;
    } totals[SUMS];
    Sums sums({{of_weight, columns * H}, {of_bias, columns}}, in.groups());
    crew().share(sums.parts, threads, [&](int64_t part) {
        Reader reader(in);
        const int64_t padded = reader.padded;
        std::vector<float> slope(in.vocabulary * LANES), of_out(Reader::GROUP * padded), back(Reader::GROUP * H);
        float *of_weight = sums.of(part, 0), *of_bias = sums.of(part, 1);
        auto& [gains, errors, entropies, divergences, clippings] = totals[part];
        for (int64_t group = part * Reader::GROUP; group < in.rows; group += sums.parts * Reader::GROUP) {
            reader.score(group);
            for (int64_t first = group; first < group + reader.count; first += LANES) {
                reader.mix(first);
                int64_t acted[LANES];
                float behavior[LANES], advantage[LANES], error[LANES], counts[LANES], imitated[LANES], chosen[LANES],
                    hinted[LANES];
                for (int l = 0; l < LANES; l++) {
                    const int64_t row = reader.row[l], at = judged->where ? judged->where[row] : row;
                    counts[l] = judged->free[at] && row == first + l;
                    hinted[l] = judged->forced && judged->forced[at] && row == first + l ? w.hint : 0;
                    behavior[l] = judged->behavior[at], advantage[l] = judged->advantage[at];
                    error[l] = counts[l] > 0 ? reader.value(row) - judged->target[at] : 0;
                    acted[l] = judged->action[at] * LANES + l;
                    chosen[l] = std::max(reader.chance[acted[l]], TINY);
                    imitated[l] = w.imitation != 0 && judged->explored[at] && advantage[l] > 0;
                }
                const vec zero = {}, counted = load(counts), gained = load(advantage),
                          log_prob = logarithm(load(chosen));
                const auto is_counted = counted > 0, imitates = load(imitated) > 0;
                const vec difference = is_counted ? log_prob - load(behavior) : zero, ratio = exponential(difference);
                vec gain = ratio * gained, of_gain = gain;
                if (clips) {
                    vec bounded = larger(ratio, all(1 - w.clip_low));
                    bounded = bounded < 1 + w.clip_high ? bounded : all(1 + w.clip_high);
                    const auto cuts = bounded * gained < gain;
                    of_gain = cuts ? zero : of_gain;
                    gain = cuts ? bounded * gained : gain;
                    const vec clipped = ratio != bounded ? counted : zero;
                    for (int l = 0; l < LANES; l++) clippings += clipped[l];
                }
                gain = imitates ? w.imitation * gained * log_prob : gain;
                of_gain = is_counted ? (imitates ? w.imitation * gained : of_gain) : load(hinted);
                gain = is_counted ? gain : load(hinted) * log_prob;

                // The slope of each probability, and its mean under the distribution, which a softmax takes off.
                vec entropy = {}, mean = {};
                const vec of_entropy = counted * w.entropy, pull = of_gain / load(chosen);
                for (int64_t v = 0; v < in.vocabulary; v++) {
                    const vec p = load(&reader.chance[v * LANES]), q = larger(p, all(TINY)), log_q = logarithm(q);
                    entropy -= q * log_q;
                    store(&slope[v * LANES], p < TINY ? zero : of_entropy * (log_q + 1.0f));
                }
                for (int l = 0; l < LANES; l++) {
                    if (reader.chance[acted[l]] >= TINY) slope[acted[l]] -= pull[l];
                }
                for (int64_t v = 0; v < in.vocabulary; v++)
                    mean += load(&reader.chance[v * LANES]) * load(&slope[v * LANES]);
                for (int64_t v = 0; v < in.vocabulary; v++)
                    store(&reader.write[v * LANES],
                          load(&reader.write[v * LANES]) * (load(&slope[v * LANES]) - mean) * each);

                for (int l = 0; l < LANES && first + l < group + reader.count; l++) {
                    const int64_t row = first + l, *context = in.read(row);
                    float* own = &of_out[(row - group) * padded];
                    for (int64_t v = 0; v < in.vocabulary; v++) own[v] = reader.write[v * LANES + l];
                    own[in.vocabulary] = 2 * w.value * error[l] * each;
                    float *by_place = own + in.vocabulary + 1, *by_content = by_place + in.places;
                    for (int64_t v = 0; v < in.vocabulary && in.places; v++) by_content[v] = 0;
                    for (int64_t c = 0; c < in.places; c++) {
                        by_place[c] = reader.copied[c * LANES + l] * (slope[context[c] * LANES + l] - mean[l]) * each;
                        by_content[context[c]] += by_place[c];
                    }
                    for (int64_t k = 0; k < reader.columns; k++) of_bias[k] += own[k];
                }
                const vec divergence = ratio - 1.0f - difference;
                for (int l = 0; l < LANES; l++) {
                    if (hinted[l] != 0) gains += gain[l];
                    if (counts[l] == 0) continue;
                    gains += gain[l], errors += error[l] * error[l], entropies += entropy[l],
                        divergences += divergence[l];
                }
            }
            product(reader.columns, H, reader.count, of_out.data(), 1, padded, reader.hidden, H, of_weight, H, true);
            float* target = in.heed ? back.data() : of_hidden + group * H;
            product(reader.count, H, reader.columns, of_out.data(), padded, 1, in.weight, H, target, H, false);
            for (int64_t i = 0; i < reader.count && in.heed; i++)
                std::memcpy(of_hidden + in.heed[group + i] * H, &back[i * H], H * sizeof(float));
        }
    });
    sums.add();
    double gains = 0, errors = 0, entropies = 0, divergences = 0, clippings = 0;
    for (const Totals& part : totals) {
        gains += part.gains, errors += part.errors, entropies += part.entropies;
        divergences += part.divergences, clippings += part.clippings;
    }
    terms[1] = -gains / w.count, terms[2] = errors / w.count, terms[3] = entropies / w.count;
    terms[4] = divergences / w.count, terms[5] = clippings / w.count;
    terms[0] = terms[1] + w.value * terms[2] - w.entropy * terms[3];
}

}  // extern "C"
